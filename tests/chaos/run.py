"""One seeded run: a job, faults while it works, and the invariants after its end."""

from __future__ import annotations

import resource
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.faults import FAULTS, costs_of
from tests.chaos.invariants import complaints
from tests.chaos.leftovers import leftovers
from tests.chaos.report import Report
from tests.chaos.schedule import Schedule, draw
from tests.chaos.service_manager import service_manager
from tests.chaos.submission import submit_job
from tests.chaos.world import World, new_world
from tests.support.repositories import shell
from tests.support.waiting import wait_until

JOB_SECONDS: Final = 240.0
"""When a job is called stuck. Far more than faults and leases add up to."""


def run_seed(seed: int, keep_logs: Path | None = None) -> Report:
    """Run one job under the faults that this seed draws. The same seed draws the same faults, in the same order.

    `keep_logs` is a folder for what the processes of a failed run have said."""
    began = time.monotonic()
    possible = [name for name, fault in FAULTS.items() if fault.why_not() is None]
    schedule = draw(seed, possible)
    fired: list[str] = []
    found: list[str] = []
    went_on = 0

    def prepare(world: World) -> None:
        for name in dict.fromkeys(schedule.faults):
            FAULTS[name].prepare(world)

    with new_world(seed, prepare) as world:
        lease = world.fleet.settings.lease_seconds
        with service_manager(world, {point.point: lease + point.seconds for point in schedule.points}):
            with _noting(found):
                _run_job(world, schedule, fired, found)
            hits = tuple(world.points.hits())
            with _noting(found):
                went_on = len(world.fleet.rows("SELECT 1 FROM attempts WHERE resumed_from IS NOT NULL"))
        with _noting(found):
            world.fleet.close_processes()
            found.extend(leftovers(world))
        if found and keep_logs is not None:
            with _noting(found):
                _keep(world, keep_logs / f"seed-{seed}")
    return Report(seed, tuple(fired), hits, went_on, tuple(found), time.monotonic() - began, _processor_seconds())


@contextmanager
def _noting(found: list[str]) -> Iterator[None]:
    """What goes wrong in the block is a complaint: a run that fails in whatever way still keeps its logs."""
    try:
        yield
    except AssertionError as error:
        found.append(str(error))
    except Exception:
        found.append(traceback.format_exc())


def _processor_seconds() -> float:
    """Of this process and of all that it has started, which have ended by now."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


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
