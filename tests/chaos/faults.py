"""All faults from outside; `orchestrator.fault_points` are those from inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tests.chaos import faults_of_messages, faults_of_processes, faults_of_services
from tests.chaos.fault import Fault
from tests.chaos.points import Hit
from tests.chaos.world import SLOTS

FAULTS: Final[dict[str, Fault]] = {
    fault.name: fault for fault in (*faults_of_processes.FAULTS, *faults_of_services.FAULTS, *faults_of_messages.FAULTS)
}

POINTS_COST: Final = {"kill": ("worker_lost",), "stop": ("worker_lost",), "delay": ()}
"""What an action at a fault point may give to agents that had begun to work: all those of one process."""


def costs_of(tried: Iterable[str], hits: Iterable[Hit]) -> Counter[str]:
    """How many ends of each kind, other than completed, these faults excuse, whether or not they met what they looked for."""
    costs: Counter[str] = Counter()
    for fault in (FAULTS[name] for name in tried):
        costs.update(dict.fromkeys(fault.costs, fault.most))
    for hit in hits:
        costs.update(dict.fromkeys(POINTS_COST[hit.action], SLOTS))
    return costs
