"""Subtasks → groups: the three strategies, as pure functions.

`parallel_groups`
    The groups as written. A subtask without a `parallel_group` runs alone, in a group of its own, after everything
    that it depends on. If a written group needs it, directly or through others, it runs just before the first group
    that does; else it runs after the last written group. Of several at one place the smallest id runs first, as far
    as their dependencies let it. So none runs before the first written group unless a written group needs it.
`dependencies`
    The groups are the levels of `depends_on`: a subtask's level is one more than the highest level of what it depends
    on. A testing subtask gets a group of its own, after the others of its level.
`file_based`
    As `parallel_groups`; then each written group is split so that subtasks whose `files` overlap run in different
    groups, the smaller id first. Paths overlap when they are equal or one is a folder that holds the other; a path
    with a wildcard stands for the folder above the wildcard.

Groups keep their written numbers when none was added or split; else they are numbered from 1, without gaps.

Every function expects what `orchestrator.plan.rules` has checked: unique ids, known dependencies, no cycle, and no
dependency on the same or a later group.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.plan.model import Kind, Strategy, SubTask

_TESTING_TITLE: Final = re.compile(r"\b(test|tests|testing)\b", re.IGNORECASE)
_AFTER_ALL: Final = float("inf")


@dataclass(frozen=True)
class ArrangedGroup:
    """One group as it will run. `written` is the plan's number for it, if the plan wrote one.

    `last_part` is false for all but the last of the groups that a written group was split into.
    """

    number: int
    written: int | None
    last_part: bool
    subtasks: tuple[SubTask, ...]


@dataclass(frozen=True)
class _Part:
    written: int | None
    subtasks: tuple[SubTask, ...]


def kind_of(subtask: SubTask) -> Kind:
    """The written kind; else testing if the title has the whole word test, tests or testing."""
    return subtask.kind or kind_by_title(subtask.title)


def kind_by_title(title: str) -> Kind:
    return "testing" if _TESTING_TITLE.search(title) else "work"


def arrange(subtasks: Sequence[SubTask], strategy: Strategy) -> tuple[ArrangedGroup, ...]:
    """The groups in the order in which they run, the subtasks of each in ascending id."""
    in_id_order = sorted(subtasks, key=lambda subtask: subtask.subtask_id)
    if strategy == "dependencies":
        return _numbered(_by_level(in_id_order))
    parts = _as_written(in_id_order)
    if strategy == "file_based":
        parts = [piece for part in parts for piece in _split_by_files(part)]
    return _numbered(parts)


def levels(depends_on: Mapping[int, Collection[int]]) -> dict[int, int]:
    """The level of each id, from 1: one more than the highest level of what it depends on.

    Ids on a cycle, or behind one, have no level and are missing from the answer.
    """
    dependents: dict[int, list[int]] = defaultdict(list)
    missing = {subtask_id: len(set(needed)) for subtask_id, needed in depends_on.items()}
    for subtask_id, needed in depends_on.items():
        for dependency in set(needed):
            dependents[dependency].append(subtask_id)
    found: dict[int, int] = {}
    level, ready = 1, [subtask_id for subtask_id, count in missing.items() if count == 0]
    while ready:
        found.update(dict.fromkeys(ready, level))
        freed = Counter(dependent for subtask_id in ready for dependent in dependents[subtask_id])
        ready = []
        for subtask_id, count in freed.items():
            missing[subtask_id] -= count
            if missing[subtask_id] == 0:
                ready.append(subtask_id)
        level += 1
    return found


def places_in_folders(files: Iterable[str]) -> set[str]:
    """The paths as places to compare: a path with a wildcard stands for the folder above it, the root is empty."""
    return {_before_wildcard(path).strip("/") for path in files}


def folders_of(place: str) -> Iterator[str]:
    """Every folder that holds a place, the root first; the place itself is not among them."""
    parts = place.split("/") if place else []
    return ("/".join(parts[:depth]) for depth in range(len(parts)))


def _before_wildcard(path: str) -> str:
    wildcard = re.search(r"[*?\[]", path)
    literal = path[: wildcard.start()].rpartition("/")[0] if wildcard else path
    return "" if literal == "." else literal


def _numbered(parts: Sequence[_Part]) -> tuple[ArrangedGroup, ...]:
    written = [part.written for part in parts]
    as_written = None not in written and len(set(written)) == len(written)
    last_position = {number: position for position, number in enumerate(written, start=1)}
    return tuple(
        ArrangedGroup(
            number=part.written if as_written and part.written is not None else position,
            written=part.written,
            last_part=part.written is None or last_position[part.written] == position,
            subtasks=part.subtasks,
        )
        for position, part in enumerate(parts, start=1)
    )


def _by_level(subtasks: Sequence[SubTask]) -> list[_Part]:
    level_of = levels({subtask.subtask_id: subtask.depends_on for subtask in subtasks})
    by_level: dict[int, list[SubTask]] = defaultdict(list)
    for subtask in subtasks:
        by_level[level_of[subtask.subtask_id]].append(subtask)
    parts = []
    for _, members in sorted(by_level.items()):
        work = tuple(subtask for subtask in members if kind_of(subtask) == "work")
        parts += [_Part(None, work)] if work else []
        parts += [_Part(None, (subtask,)) for subtask in members if kind_of(subtask) == "testing"]
    return parts


def _as_written(subtasks: Sequence[SubTask]) -> list[_Part]:
    groups: dict[int, list[SubTask]] = defaultdict(list)
    for subtask in subtasks:
        if subtask.parallel_group is not None:
            groups[subtask.parallel_group].append(subtask)
    alone = _alone_before(subtasks)
    parts = []
    for number, members in sorted(groups.items()):
        parts += [_Part(None, (subtask,)) for subtask in alone.get(number, ())]
        parts.append(_Part(number, tuple(members)))
    return parts + [_Part(None, (subtask,)) for subtask in alone.get(_AFTER_ALL, ())]


def _alone_before(subtasks: Sequence[SubTask]) -> dict[float, list[SubTask]]:
    """The subtasks without a group, by the number of the written group that they run before, in running order."""
    by_id = {subtask.subtask_id: subtask for subtask in subtasks}
    level_of = levels({subtask.subtask_id: subtask.depends_on for subtask in subtasks})
    before: dict[int, float] = {}
    for subtask in sorted(subtasks, key=lambda subtask: -level_of[subtask.subtask_id]):
        own = subtask.parallel_group
        place = own if own is not None else before.setdefault(subtask.subtask_id, _AFTER_ALL)
        for dependency in subtask.depends_on:
            if by_id[dependency].parallel_group is None:
                before[dependency] = min(before.get(dependency, _AFTER_ALL), place)
    at_place: dict[float, list[SubTask]] = defaultdict(list)
    for subtask_id, place in before.items():
        at_place[place].append(by_id[subtask_id])
    return {place: _smallest_id_first(members) for place, members in at_place.items()}


def _smallest_id_first(subtasks: Sequence[SubTask]) -> list[SubTask]:
    """A topological order that takes the smallest id whose dependencies among `subtasks` are through."""
    by_id = {subtask.subtask_id: subtask for subtask in subtasks}
    waits_for = {
        subtask_id: {dependency for dependency in subtask.depends_on if dependency in by_id}
        for subtask_id, subtask in by_id.items()
    }
    dependents: dict[int, list[int]] = defaultdict(list)
    for subtask_id, needed in waits_for.items():
        for dependency in needed:
            dependents[dependency].append(subtask_id)
    ready = [subtask_id for subtask_id, needed in waits_for.items() if not needed]
    heapq.heapify(ready)
    order = []
    while ready:
        subtask_id = heapq.heappop(ready)
        order.append(by_id[subtask_id])
        for dependent in dependents[subtask_id]:
            waits_for[dependent].discard(subtask_id)
            if not waits_for[dependent]:
                heapq.heappush(ready, dependent)
    return order


def _split_by_files(part: _Part) -> list[_Part]:
    """Each subtask goes into the first piece after every piece that holds a smaller id which it overlaps."""
    pieces: list[list[SubTask]] = []
    at: dict[str, int] = {}  # place → the last piece in which a subtask named it
    within: dict[str, int] = {}  # folder → the last piece in which a subtask named something inside it
    for subtask in part.subtasks:
        places = places_in_folders(subtask.files)
        overlapping = (
            last
            for place in places
            for last in (at.get(place), within.get(place), *(at.get(folder) for folder in folders_of(place)))
            if last is not None
        )
        piece = max(overlapping, default=-1) + 1
        if piece == len(pieces):
            pieces.append([])
        pieces[piece].append(subtask)
        for place in places:
            at[place] = max(at.get(place, 0), piece)
            for folder in folders_of(place):
                within[folder] = max(within.get(folder, 0), piece)
    return [_Part(part.written, tuple(members)) for members in pieces]
