"""One seeded run: a job, faults while it works, and the invariants after its end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.invariants import complaints, leftovers
from tests.chaos.world import new_world
from tests.support.waiting import wait_until

FAULTS_A_RUN: Final = 4
JOB_SECONDS: Final = 240.0
"""When a job is called stuck. Far more than faults and leases add up to."""


@dataclass(frozen=True)
class Report:
    """What happened under one seed; a run is good when there are no complaints."""

    seed: int
    fired: tuple[str, ...]
    complaints: tuple[str, ...]


def run_seed(seed: int) -> Report:
    """Run one job under the faults that this seed draws. The same seed draws the same faults, in the same order."""
    fired: list[str] = []
    found: list[str] = []
    with new_world(seed) as world:
        first = FAULTS[(seed - 1) % len(FAULTS)]  # so that every fault fires in any row of that many seeds
        drawn = [first, *world.rng.choices(FAULTS, k=FAULTS_A_RUN - 1)]
        pauses = [world.rng.uniform(0.0, 2.0) for _ in drawn]
        job_id = world.fleet.submit(world.plan())
        wait_until(world.diary.read_text, "an agent runs", timeout_seconds=60)
        for fault, pause in zip(drawn, pauses, strict=True):
            time.sleep(pause)  # the fleet works meanwhile; when a fault hits is part of the seed
            if fault(world, job_id):
                fired.append(fault.__name__)
        try:
            world.fleet.wait_for_end(job_id, timeout_seconds=JOB_SECONDS)
            found.extend(complaints(world, job_id))
        except AssertionError as error:
            found.append(str(error))
        world.fleet.close_processes()
        try:
            wait_until(lambda: not list(leftovers(world)), "nothing of any attempt is alive", timeout_seconds=10)
        except AssertionError:
            found.extend(leftovers(world))
    return Report(seed, tuple(fired), tuple(found))
