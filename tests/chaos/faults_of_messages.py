"""Faults that befall messages: copies, in any order, late by as much as you like. Late originals are what the fault point
`before_publish` makes."""

from __future__ import annotations

from typing import Any, Final

from celery import signature

from orchestrator.task_names import AGENTS_QUEUE, CONTROL_QUEUE, MERGE_GROUP, RUN_AGENT, START_JOB
from tests.chaos.fault import Fault
from tests.chaos.world import GROUPS, SIZE, World


def strange_messages(world: World, job_id: str) -> bool:
    """Every task of the job once more, out of order and outside of any chord."""
    app = world.fleet.client.app
    copies = [(RUN_AGENT, (job_id, n), AGENTS_QUEUE) for n in range(1, GROUPS * SIZE + 1)]
    copies += [(MERGE_GROUP, (job_id, n), CONTROL_QUEUE) for n in range(1, GROUPS + 1)]
    copies += [(START_JOB, (job_id,), CONTROL_QUEUE)]
    world.rng.shuffle(copies)
    for name, args, queue in copies:
        app.send_task(name, args=args, queue=queue, ignore_result=True)
    return True


def copy_messages(world: World, job_id: str) -> bool:
    """Every message that was ever owed so far once more, as it was: same ids, same chord; and the chords' bodies, early
    and late ones."""
    copies = list(world.messages.values())
    bodies: dict[str, dict[str, Any]] = {}
    for message in copies:
        body = message["options"].get("chord")
        if body:
            bodies[body["options"]["task_id"]] = body
    copies += bodies.values()
    world.rng.shuffle(copies)
    for copy in copies:
        signature(dict(copy), app=world.fleet.client.app).apply_async(ignore_result=True)
    return bool(copies)


def late_copies(world: World, job_id: str) -> bool:
    """The same when the job has ended long ago."""
    return copy_messages(world, job_id)


FAULTS: Final = (
    Fault(strange_messages),
    Fault(copy_messages),
    Fault(late_copies, after_the_job=True),
)
