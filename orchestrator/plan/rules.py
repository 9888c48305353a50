"""What the values of a plan must mean together: each rule is a pure function that yields its findings.

A `Draft` is what could be read of a plan, so that these rules also speak where the shape of another subtask is
broken. A rule is silent where an unreadable part could prove it wrong.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from orchestrator.agent_names import AgentEntry, check_agent, check_permissions
from orchestrator.plan.faults import Path
from orchestrator.plan.grouping import kind_of, levels
from orchestrator.plan.model import AgentSpec, Plan, SubTask


@dataclass(frozen=True)
class Draft:
    """The readable subtasks of a plan, each with its position in the plan's list.

    `unreadable_ids` are the ids of the others, None if not even those can be told; `unreadable_keys` those of the
    plan's keys that stand at their defaults because what is written can't be read.
    """

    plan: Plan
    positions: tuple[int, ...]
    known_agents: Mapping[str, AgentEntry | None]
    """By name; with an entry, the agent's configuration is checked too."""
    unreadable_keys: frozenset[str] = frozenset()
    unreadable_ids: frozenset[int] | None = frozenset()

    @property
    def at(self) -> list[tuple[Path, SubTask]]:
        return [
            (("subtasks", position), subtask)
            for position, subtask in zip(self.positions, self.plan.subtasks, strict=True)
        ]

    @property
    def groups_are_written(self) -> bool:
        """Whether `parallel_group` decides, and the strategy that says so can be read."""
        return (
            self.plan.parallelization_strategy != "dependencies"
            and "parallelization_strategy" not in self.unreadable_keys
        )

    @property
    def by_id(self) -> dict[int, SubTask]:
        """The first subtask of each id."""
        return {subtask.subtask_id: subtask for subtask in reversed(self.plan.subtasks)}


class Finding(NamedTuple):
    path: Path
    message: str
    hint: str = ""


def findings(draft: Draft) -> Iterator[Finding]:
    """Every broken rule of the plan."""
    for rule in _RULES:
        yield from rule(draft)


def ids_in_words(ids: Collection[int], most: int = 10) -> str:
    """`1`, `1 and 2`, `1, 2 and 3`; of more than `most` the number of the others."""
    words = [str(subtask_id) for subtask_id in sorted(ids)]
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word that the reader may have meant."""
    found = difflib.get_close_matches(word[:100], sorted(known), n=1)
    return found[0] if found else None


def _unique_ids(draft: Draft) -> Iterator[Finding]:
    first: dict[int, str] = {}
    free = max(draft.by_id, default=0) + 1
    for path, subtask in draft.at:
        if subtask.subtask_id in first:
            yield Finding(
                (*path, "subtask_id"),
                f"The id {subtask.subtask_id} is used twice: by '{first[subtask.subtask_id]}' and by '{subtask.title}'.",
                f"The id {free} is free.",
            )
        first.setdefault(subtask.subtask_id, subtask.title)


def _known_dependencies(draft: Draft) -> Iterator[Finding]:
    if draft.unreadable_ids is None:
        return
    known = draft.by_id.keys() | draft.unreadable_ids
    hint = f"The plan's ids are {ids_in_words(known)}."
    for path, subtask in draft.at:
        for dependency in dict.fromkeys(subtask.depends_on):
            if dependency not in known:
                yield Finding(
                    (*path, "depends_on"),
                    f"Subtask {subtask.subtask_id} depends on {dependency}, and the plan has no subtask of that id.",
                    hint,
                )


def _no_cycles(draft: Draft) -> Iterator[Finding]:
    path_of = {subtask.subtask_id: path for path, subtask in reversed(draft.at)}
    for subtask_id, subtask in draft.by_id.items():
        if subtask_id in subtask.depends_on:
            yield Finding(
                (*path_of[subtask_id], "depends_on"), f"Subtask {subtask_id} depends on itself.", "Remove that id."
            )
    for cycle in _cycles(_dependencies(draft)):
        yield Finding(
            (*path_of[cycle[0]], "depends_on"),
            f"The subtasks {_circle_in_words(cycle)} depend on each other in a circle.",
            "Remove one of these dependencies.",
        )


def _circle_in_words(cycle: Sequence[int]) -> str:
    shown = [str(subtask_id) for subtask_id in cycle[:10]] + (["…"] if len(cycle) > 10 else [])
    return " → ".join([*shown, str(cycle[0])])


def _dependencies(draft: Draft) -> dict[int, set[int]]:
    """The dependencies between readable subtasks, without those of a subtask on itself."""
    by_id = draft.by_id
    return {
        subtask_id: {
            dependency for dependency in subtask.depends_on if dependency in by_id and dependency != subtask_id
        }
        for subtask_id, subtask in by_id.items()
    }


def _cycles(depends_on: Mapping[int, Collection[int]]) -> Iterator[list[int]]:
    """Cycles that share no id, each from its smallest one; none is left out but those that share an id with
    another."""
    done: set[int] = set()
    reported: set[int] = set()
    for start in sorted(depends_on):
        trail = {} if start in done else {start: iter(sorted(depends_on[start]))}
        while trail:
            place = next(reversed(trail))
            dependency = next(trail[place], None)
            if dependency is None:
                del trail[place]
                done.add(place)
            elif dependency in trail:
                if reported.isdisjoint((place, dependency)):
                    walked = list(trail)
                    cycle = walked[walked.index(dependency) :]
                    if reported.isdisjoint(cycle):
                        reported.update(cycle)
                        smallest = cycle.index(min(cycle))
                        yield cycle[smallest:] + cycle[:smallest]
            elif dependency not in done:
                trail[dependency] = iter(sorted(depends_on[dependency]))


def _earlier_groups(draft: Draft) -> Iterator[Finding]:
    """A dependency in the same or a later group, also through subtasks that have no group."""
    if not draft.groups_are_written:
        return
    by_id = draft.by_id
    depends_on = _dependencies(draft)
    latest: dict[int, int] = {}  # id → the latest written group that it stands in, or needs while it has none
    through: dict[int, int] = {}
    for subtask_id in levels(depends_on):  # in ascending level
        group = by_id[subtask_id].parallel_group
        needed = max(depends_on[subtask_id], key=lambda dependency: latest[dependency], default=None)
        latest[subtask_id] = group if group is not None else latest[needed] if needed is not None else 0
        if group is None and needed is not None:
            through[subtask_id] = needed
    for path, subtask in draft.at:
        for dependency in sorted(depends_on[subtask.subtask_id]):
            group = subtask.parallel_group
            if group is None or latest.get(dependency, 0) < group:
                continue
            end = dependency
            while end in through:
                end = through[end]
            way = f" through {dependency}, which has no group" if end != dependency else ""
            which = "the same group" if latest[dependency] == group else f"the later group {latest[dependency]}"
            yield Finding(
                (*path, "depends_on"),
                f"Subtask {subtask.subtask_id} of group {group} depends on {end} of {which}{way}.",
                f"Put subtask {subtask.subtask_id} into a group after {latest[dependency]}.",
            )


def _single_agent_testing(draft: Draft) -> Iterator[Finding]:
    """Under `dependencies` the arrangement itself gives each testing subtask a group of its own."""
    if not draft.groups_are_written:
        return
    groups: dict[int, list[tuple[Path, SubTask]]] = defaultdict(list)
    for path, subtask in draft.at:
        if subtask.parallel_group is not None:
            groups[subtask.parallel_group].append((path, subtask))
    for number, members in groups.items():
        if len(members) == 1:
            continue
        held = ids_in_words([subtask.subtask_id for _, subtask in members])
        for path, subtask in members:
            if kind_of(subtask) == "testing":
                way_out = "." if subtask.kind else ", or write `kind: work` if it tests nothing."
                yield Finding(
                    (*path, "parallel_group"),
                    f"Subtask {subtask.subtask_id} '{subtask.title}' is a testing subtask and must be alone in its group, "
                    f"but group {number} holds {held}.",
                    "Give it a group of its own" + way_out,
                )


def _known_agents(draft: Draft) -> Iterator[Finding]:
    plan = draft.plan
    default_is_used = any(subtask.agent is None for subtask in plan.subtasks)
    default_is_written = "agent" in plan.defaults.model_fields_set
    if default_is_written or (default_is_used and "defaults" not in draft.unreadable_keys):
        where: Path = ("defaults", "agent") if default_is_written else ("defaults",)
        yield from _known_agent(where, plan.defaults.agent, "the plan's defaults name", draft.known_agents)
    for path, subtask in draft.at:
        if subtask.agent is not None:
            says = f"subtask {subtask.subtask_id} names"
            yield from _known_agent((*path, "agent"), subtask.agent, says, draft.known_agents)


def _known_agent(path: Path, agent: AgentSpec, says: str, known: Mapping[str, AgentEntry | None]) -> Iterator[Finding]:
    entry = known.get(agent.name)
    if entry is not None:
        for fault in check_agent(agent.name, agent.config, {agent.name: entry}):
            yield Finding(path, f"{fault[0].upper()}{fault[1:]}.", "`orchestrator agents` shows what there is.")
    if agent.name not in known:
        meant = nearest(agent.name, known)
        names = ", ".join(sorted(known)) or "none"
        yield Finding(
            path,
            f"No agent is called '{agent.name}', which {says}.",
            (f"Did you mean '{meant}'? " if meant else "") + f"The known agents are {names}.",
        )


def _permissions_can_be_kept(draft: Draft) -> Iterator[Finding]:
    told: set[tuple[str, str]] = set()
    for path, subtask in draft.at:
        agent = subtask.agent or draft.plan.defaults.agent
        permissions = subtask.permissions or draft.plan.defaults.permissions
        entry = draft.known_agents.get(agent.name)
        if entry is None or (agent.name, permissions) in told:
            continue
        told.add((agent.name, permissions))
        if fault := check_permissions(permissions, entry):
            where = path if subtask.agent or subtask.permissions else ("defaults",)
            yield Finding(where, f"{fault[0].upper()}{fault[1:]}.", "Say it at the subtask, or take another agent.")


def _no_written_groups(draft: Draft) -> Iterator[Finding]:
    if draft.plan.parallelization_strategy != "dependencies":
        return
    for path, subtask in draft.at:
        if subtask.parallel_group is not None:
            yield Finding(
                (*path, "parallel_group"),
                f"Subtask {subtask.subtask_id} has a `parallel_group`, but under the strategy `dependencies` the groups "
                "follow from `depends_on`.",
                "Remove it, or choose `parallelization_strategy: parallel_groups`.",
            )


def _said_once(draft: Draft) -> Iterator[Finding]:
    plan, defaults = draft.plan, draft.plan.defaults
    pairs = [
        ("agent_timeout_seconds", plan.agent_timeout_seconds, "timeout", "timeout_seconds", defaults.timeout_seconds),
        ("max_retries", plan.max_retries, "max_retries", "max_retries", defaults.max_retries),
    ]
    for word, said, other_word, attribute, other in pairs:
        if said is not None and attribute in defaults.model_fields_set and said != other:
            yield Finding(
                (word,),
                f"`{word}` is {said:g}, and `defaults.{other_word}`, which is the same, is "
                f"{'no limit' if other is None else f'{other:g}'}.",
                "Remove one of them.",
            )


def _checks_of_written_groups(draft: Draft) -> Iterator[Finding]:
    """Under `dependencies` nothing is written: `orchestrator.plan.validate` compares with the levels' groups."""
    if not draft.groups_are_written or draft.unreadable_ids != frozenset():
        return
    written = {subtask.parallel_group for subtask in draft.plan.subtasks if subtask.parallel_group is not None}
    yield from checks_of_missing_groups(draft.plan, written)


def checks_of_missing_groups(plan: Plan, numbers: Collection[int]) -> Iterator[Finding]:
    """A `group_checks` entry for a group that has no subtask. `numbers` are the groups that have some."""
    if isinstance(plan.group_checks, dict):
        for number in plan.group_checks:
            if number not in numbers:
                yield Finding(
                    ("group_checks", str(number)),
                    f"`group_checks` names group {number}, which has no subtasks.",
                    f"The groups are {ids_in_words(numbers)}." if numbers else "No subtask has a `parallel_group`.",
                )


_RULES: Final[tuple[Callable[[Draft], Iterator[Finding]], ...]] = (
    _said_once,
    _unique_ids,
    _known_dependencies,
    _no_cycles,
    _earlier_groups,
    _no_written_groups,
    _single_agent_testing,
    _known_agents,
    _permissions_can_be_kept,
    _checks_of_written_groups,
)
