"""A job that waits for processes that are not there, or for programs: said at once, not found out by waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.access.missing_programs import missing_programs
from orchestrator.access.nodes import Node, nodes_of
from orchestrator.cli.render import say
from orchestrator.errors import BrokerUnavailable

if TYPE_CHECKING:
    from orchestrator.dispatch.fleet import Fleet
    from orchestrator.plan.model import ResolvedSubtask


def warn_if_nobody_works(fleet: Fleet, job_id: str) -> list[Node]:
    """Say on stderr that a job waits for processes that are not there. Returns those that are."""
    try:
        nodes = nodes_of(fleet.app, fleet.settings.broker_url or "")
    except BrokerUnavailable as error:
        say(f"warning: {error.message} The job is stored and starts when the broker is back.")
        return []
    missing = [
        name
        for name, present in (
            ("dispatcher", any(node.is_dispatcher for node in nodes)),
            ("worker", any(node.is_worker for node in nodes)),
        )
        if not present
    ]
    if missing:
        say(
            f"warning: no {' and no '.join(missing)} answers. Job {job_id} goes on when there is one: "
            "`orchestrator up` on this machine, or the processes of your fleet."
        )
    return nodes


def warn_of_missing_programs(
    fleet: Fleet, subtasks: Iterable[ResolvedSubtask], nodes: Sequence[Node] | None = None
) -> None:
    """Say on stderr which of their agents some worker can't start."""
    for words in missing_programs(fleet, subtasks, nodes):
        say(f"warning: {words}")
