"""A plan in which testing subtasks stand beside others → the same plan with each of them alone: no question of judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.plan.grouping import kind_by_title, levels
from orchestrator.plan.values import MAX_ID


@dataclass(frozen=True)
class _Member:
    """What decides of a subtask's group, as far as it can be read."""

    subtask_id: int
    group: int
    is_testing: bool
    needs: tuple[int, ...]


def with_testing_apart(proposed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The plan's words, mended, and in sentences what was done.

    A testing subtask that is not alone goes into a group of its own after its group; of several the smallest id runs first,
    as far as their dependencies let it. Groups are numbered from 1, and `group_checks` follow them. A group's check stays
    with its work. Words that can't be read so are left as they are.
    """
    subtasks = proposed.get("subtasks")
    members = [_member(subtask) for subtask in subtasks] if isinstance(subtasks, list) else []
    grouped = [member for member in members if member is not None]
    sizes = Counter(member.group for member in grouped)
    moved = [member for member in grouped if member.is_testing and sizes[member.group] > 1]
    if not moved or None in members:
        return dict(proposed), []
    ids = {member.subtask_id for member in moved}
    level_of = levels({member.subtask_id: ids.intersection(member.needs) for member in moved})
    last = len(grouped)
    place = {member.subtask_id: (member.group, 0, 0) for member in grouped}
    place |= {
        member.subtask_id: (member.group, level_of.get(member.subtask_id, last), member.subtask_id) for member in moved
    }
    number = {spot: position for position, spot in enumerate(sorted(set(place.values())), start=1)}
    mended = dict(proposed)
    mended["subtasks"] = [
        {**subtask, "parallel_group": number[place[subtask["subtask_id"]]]} for subtask in subtasks or ()
    ]
    if isinstance(proposed.get("group_checks"), Mapping):
        first = {str(group): number[min(spot for spot in number if spot[0] == group)] for group in sizes}
        checks = proposed["group_checks"].items()
        mended["group_checks"] = {str(first.get(str(key), key)): check for key, check in checks}
    notes = [
        f"Subtask {member.subtask_id} is a testing subtask: it has a group of its own after group {member.group}."
        for member in sorted(moved, key=lambda member: member.subtask_id)
    ]
    return mended, notes


def _member(subtask: Any) -> _Member | None:
    """None where the subtask has no group that can be read, or breaks the form of one."""
    match subtask:
        case {"subtask_id": int(subtask_id), "title": str(title), "parallel_group": int(group)} if 0 < group <= MAX_ID:
            needs = subtask.get("depends_on", subtask.get("dependencies", []))
            is_read = isinstance(needs, list) and all(isinstance(one, int) for one in needs)
            kind = subtask.get("kind") or kind_by_title(title)
            return _Member(subtask_id, group, kind == "testing", tuple(needs)) if is_read else None
    return None
