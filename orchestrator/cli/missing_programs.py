"""Agents of a plan whose programs are not there, or too old: said when the plan is submitted, not when its money is spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.access.nodes import Node, nodes_of
from orchestrator.access.programs import AgentProgram, programs_at
from orchestrator.agent_choice import program_of
from orchestrator.agent_names import AgentEntry, known_agents
from orchestrator.cli.render import say
from orchestrator.errors import BrokerUnavailable
from orchestrator.plan.rules import ids_in_words
from orchestrator.text import plural

if TYPE_CHECKING:
    from orchestrator.dispatch.fleet import Fleet
    from orchestrator.plan.model import ValidatedPlan

MOST_NAMED: Final = 3


@dataclass(frozen=True)
class Need:
    """An agent of a plan: its name, the path of its program where the plan says it, and what its worker must offer."""

    agent: str
    path: str | None
    requires: frozenset[str]


def warn_of_missing_programs(fleet: Fleet, plan: ValidatedPlan, nodes: Sequence[Node] | None = None) -> None:
    """Say on stderr which agents of the plan some worker that answers can't start. `nodes` are those that answer, where the
    caller knows them; a fleet is asked only where the plan needs a program. A broker that is away is not this warning's business."""
    needs = needs_of(plan, known_agents(fleet.settings))
    if not needs:
        return
    url = fleet.settings.broker_url or ""
    try:
        workers = [node for node in (nodes_of(fleet.app, url) if nodes is None else nodes) if node.is_worker]
        wanted = sorted({(need.agent, need.path or "") for need in needs})
        told = programs_at(
            fleet.app, url, [node.name for node in workers], [(agent, path or None) for agent, path in wanted]
        )
    except BrokerUnavailable:
        return
    for words in warnings_of(needs, workers, told):
        say(f"warning: {words}")


def needs_of(plan: ValidatedPlan, known: Mapping[str, AgentEntry]) -> dict[Need, list[int]]:
    """The agents of the plan that a worker may be without, each with the subtasks that need it."""
    needs: defaultdict[Need, list[int]] = defaultdict(list)
    for subtask in (subtask for group in plan.groups for subtask in group.subtasks):
        entry = known[subtask.agent.name]
        program = program_of(subtask.agent, entry)
        if entry.origin.startswith("workers.agents.") and program in (None, "bash"):
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
