"""What a sound plan may still regret: sentences for the user, none of which stops the job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from orchestrator.plan.grouping import folders_of, places_in_folders
from orchestrator.plan.model import Plan, PlannedGroup
from orchestrator.plan.rules import ids_in_words


def warnings_of(plan: Plan, groups: Sequence[PlannedGroup]) -> Iterator[str]:
    """Overlapping files, empty descriptions, subtasks that run alone though nobody said so, words without effect."""
    if plan.base is not None and plan.repo is None:
        yield "`base` has no effect, for the plan names no `repo`."
    undescribed = [subtask.subtask_id for subtask in plan.subtasks if not subtask.description.strip()]
    if undescribed:
        yield f"{_subtasks(undescribed)} no description: the title is all that the agent gets."
    if plan.parallelization_strategy != "dependencies":
        ungrouped = [subtask.subtask_id for subtask in plan.subtasks if subtask.parallel_group is None]
        if len(ungrouped) > 1:
            yield f"{_subtasks(ungrouped)} no `parallel_group` and will run one after the other."
    if plan.parallelization_strategy == "file_based":
        unknown = [subtask.subtask_id for subtask in plan.subtasks if not subtask.files]
        if unknown:
            yield f"{_subtasks(unknown)} no `files`, so that `file_based` can't tell what they touch."
    for group in groups:
        for overlap in overlaps_of(group):
            yield f"Group {group.number}: {overlap}; their changes may conflict."


def _subtasks(ids: Sequence[int]) -> str:
    return f"Subtask{'s' if len(ids) > 1 else ''} {ids_in_words(ids)} {'have' if len(ids) > 1 else 'has'}"


def overlaps_of(group: PlannedGroup) -> Iterator[str]:
    """One clause for each set of subtasks that mean to touch the same places."""
    users: dict[str, set[int]] = defaultdict(set)
    for subtask in group.subtasks:
        for place in places_in_folders(subtask.files):
            users[place].add(subtask.subtask_id)
    shared: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for place in sorted(users):
        touching = users[place].union(*(users[folder] for folder in folders_of(place) if folder in users))
        if len(touching) > 1:
            shared[tuple(sorted(touching))].append(place or "the whole repository")
    for ids, places in shared.items():
        named = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        yield f"subtasks {ids_in_words(ids)} mean to touch {named}"
