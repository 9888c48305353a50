"""Agents whose programs are not there, or too old: said when their work is submitted, not when an attempt fails of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.access.nodes import Node, nodes_of
from orchestrator.access.programs import AgentProgram, programs_at
from orchestrator.agent_choice import program_of
from orchestrator.agent_names import AgentEntry, known_agents
from orchestrator.errors import BrokerUnavailable, ConfigurationError
from orchestrator.plan.rules import ids_in_words
from orchestrator.text import plural

if TYPE_CHECKING:
    from orchestrator.dispatch.fleet import Fleet
    from orchestrator.plan.model import ResolvedSubtask

MOST_NAMED: Final = 3


@dataclass(frozen=True)
class Need:
    """An agent of subtasks: its name, the path of its program where they say it, and what its worker must offer."""

    agent: str
    path: str | None
    requires: frozenset[str]


def missing_programs(
    fleet: Fleet,
    subtasks: Iterable[ResolvedSubtask],
    nodes: Sequence[Node] | None = None,
    *,
    said_before: set[Need] | None = None,
) -> list[str]:
    """What is to be said of the agents that some worker that answers can't start, in sentences. `nodes` are those that answer,
    where the caller knows them; a fleet is asked, for a second or more, only where an agent needs a program, and not for
    what is in `said_before`, which grows. A broker that is away is not this warning's business."""
    needs = needs_of(subtasks, known_agents(fleet.settings))
    if said_before is not None:
        needs = {need: subtask_ids for need, subtask_ids in needs.items() if need not in said_before}
        said_before.update(needs)
    if not needs:
        return []
    url = fleet.settings.broker_url or ""
    try:
        workers = [node for node in (nodes_of(fleet.app, url) if nodes is None else nodes) if node.is_worker]
        wanted = sorted({(need.agent, need.path or "") for need in needs})
        told = programs_at(
            fleet.app, url, [node.name for node in workers], [(agent, path or None) for agent, path in wanted]
        )
    except BrokerUnavailable:
        return []
    return list(warnings_of(needs, workers, told))


def needs_of(subtasks: Iterable[ResolvedSubtask], known: Mapping[str, AgentEntry]) -> dict[Need, list[int]]:
    """The agents that a worker may be without, each with the subtasks that need it."""
    needs: defaultdict[Need, list[int]] = defaultdict(list)
    for subtask in subtasks:
        entry = known.get(subtask.agent.name)
        try:
            program = program_of(subtask.agent, entry) if entry else None
        except ConfigurationError:  # a job that was submitted elsewhere may name what can't be loaded here
            entry = program = None
        if entry and entry.origin.startswith("workers.agents.") and program in (None, "bash"):
            continue  # it comes with every worker; an agent of somebody else's may not have been brought everywhere
        path = subtask.agent.config.get("path")
        need = Need(subtask.agent.name, program if program == path else None, frozenset(subtask.requires))
        needs[need].append(subtask.subtask_id)
    return dict(needs)


def warnings_of(
    needs: Mapping[Need, Sequence[int]], workers: Sequence[Node], told: Sequence[AgentProgram]
) -> Iterator[str]:
    """One sentence or two for each agent that is not at every worker that could be given its subtasks."""
    for need, subtask_ids in needs.items():
        eligible = {node.name for node in workers if need.requires <= set(node.capabilities)}
        answers = [one for one in told if one.worker in eligible and (one.agent, one.path) == (need.agent, need.path)]
        missing = [one for one in answers if one.is_missing]
        if not missing:
            continue
        where = "; ".join(f"{one.worker}: {one.note}" for one in missing[:MOST_NAMED])
        more = f"; and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        who = f"subtask{'s' if len(subtask_ids) > 1 else ''} {ids_in_words(subtask_ids)}"
        if len(missing) == len(answers):
            yield (
                f"No worker that answers can start {need.agent} for {who} ({where}{more}): an attempt ends as agent_missing. "
                "Install it there."
            )
        else:
            yield (
                f"{plural(len(missing), 'worker')} of {len(answers)} can't start {need.agent} for {who} ({where}{more}): an "
                "attempt there ends as agent_missing. Install it there, or let `requires` name what only the others offer."
            )
