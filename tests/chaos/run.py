"""One seeded run: a job, faults while it works, and the invariants after its end."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.faults import FAULTS, costs_of
from tests.chaos.invariants import complaints
from tests.chaos.leftovers import leftovers
from tests.chaos.points import Hit
from tests.chaos.schedule import Schedule, draw
from tests.chaos.service_manager import service_manager
from tests.chaos.submission import submit_job
from tests.chaos.world import World, new_world
from tests.support.repositories import shell
from tests.support.waiting import wait_until

JOB_SECONDS: Final = 240.0
"""When a job is called stuck. Far more than faults and leases add up to."""


@dataclass(frozen=True)
class Report:
    """What happened under one seed; a run is good when there are no complaints."""

    seed: int
    schedule: Schedule
    fired: tuple[str, ...]
    hits: tuple[Hit, ...]
    went_on: int
    """Attempts that went on with the session and the work of an earlier one."""
    complaints: tuple[str, ...]


def run_seed(seed: int, keep_logs: Path | None = None) -> Report:
    """Run one job under the faults that this seed draws. The same seed draws the same faults, in the same order.

    `keep_logs` is a folder for what the processes of a failed run have said."""
    possible = [name for name, fault in FAULTS.items() if fault.why_not() is None]
    schedule = draw(seed, possible)
    fired: list[str] = []
    found: list[str] = []

    def prepare(world: World) -> None:
        for name in dict.fromkeys(schedule.faults):
            FAULTS[name].prepare(world)

    with new_world(seed, prepare) as world:
        lease = world.fleet.settings.lease_seconds
        with service_manager(world, {point.point: lease + point.seconds for point in schedule.points}):
            try:
                _run_job(world, schedule, fired, found)
            except AssertionError as error:
                found.append(str(error))
            hits = tuple(world.points.hits())
            went_on = len(world.fleet.rows("SELECT 1 FROM attempts WHERE resumed_from IS NOT NULL"))
        world.fleet.close_processes()
        found.extend(leftovers(world))
        if found and keep_logs is not None:
            _keep(world, keep_logs / f"seed-{seed}")
    return Report(seed, schedule, tuple(fired), hits, went_on, tuple(found))


def _keep(world: World, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*world.fleet.folder.glob("*.log"), world.diary):
        shutil.copy(file, folder)
    for table in ("events", "attempts", "outbox"):
        rows = world.fleet.rows(f"SELECT * FROM {table} ORDER BY id")
        (folder / f"{table}.txt").write_text("".join(f"{row}\n" for row in rows))


def _run_job(world: World, schedule: Schedule, fired: list[str], found: list[str]) -> None:
    for point in schedule.points:
        if point.after_seconds is None:
            world.points.arm(point.point, point.action, point.seconds)
    job_id = submit_job(world)
    wait_until(world.diary.read_text, "an agent runs", timeout_seconds=60)
    for point in schedule.points:
        if point.after_seconds is not None:
            later = threading.Timer(point.after_seconds, world.points.arm, (point.point, point.action, point.seconds))
            later.start()
    timely = [name for name in schedule.faults if not FAULTS[name].after_the_job]
    for name, pause in zip(timely, schedule.pauses, strict=False):
        time.sleep(pause)  # the fleet works meanwhile; when a fault hits is part of the seed
        if FAULTS[name].happen(world, job_id):
            fired.append(name)
    world.fleet.wait_for_end(job_id, timeout_seconds=JOB_SECONDS)
    world.points.disarm()
    late = [name for name in schedule.faults if FAULTS[name].after_the_job]
    fired.extend(name for name in late if FAULTS[name].happen(world, job_id))
    # The queues are taken in order: when this one has ended, whatever was in them has been met. And the fleet lives.
    after = world.fleet.submit({"title": "After", "subtasks": [shell(1, "true"), shell(2, "true", group=2)]})
    ended = world.fleet.wait_for_end(after, timeout_seconds=60)
    if ended["status"] != "completed":
        found.append(f"a job submitted afterwards is {ended['status']}: {ended['error']}")
    found.extend(complaints(world, job_id, fired, costs_of(schedule.faults, world.points.hits())))
