"""All faults from outside; `orchestrator.fault_points` are those from inside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.chaos import faults_of_messages, faults_of_processes, faults_of_services
from tests.chaos.fault import Fault
from tests.chaos.points import Hit

FAULTS: Final[dict[str, Fault]] = {
    fault.name: fault for fault in (*faults_of_processes.FAULTS, *faults_of_services.FAULTS, *faults_of_messages.FAULTS)
}

POINTS_COST: Final = {"kill": ("worker_lost",), "stop": ("worker_lost",), "delay": ()}
"""What an action at a fault point may give to an agent that had begun to work."""


def costs_of(tried: Iterable[str], hits: Iterable[Hit]) -> set[str]:
    """The ends, other than completed, that these faults excuse, whether or not they met what they looked for."""
    return {end for name in tried for end in FAULTS[name].costs} | {
        end for hit in hits for end in POINTS_COST[hit.action]
    }
