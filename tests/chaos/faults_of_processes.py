"""Faults that befall dispatchers, workers, guards and agents."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

import psutil

from orchestrator.local.postgres import SUPERUSER
from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import HELPERS
from tests.chaos.fault import FAKETIME, Fault, why_no_other_clock
from tests.chaos.world import DISPATCHERS, LONG, SIZE, SLOTS, WORKERS, World
from tests.support.island import SHORE, why_no_island
from tests.support.waiting import wait_until

ISLANDER: Final = "worker-c"


def kill_worker(world: World, job_id: str) -> bool:
    """kill -9 of a worker with agents at work: they end, their leases expire, and the work goes on elsewhere."""
    name = _busy_worker(world, job_id)
    return name is not None and _end(world, name, signal.SIGKILL)


def kill_dispatcher(world: World, job_id: str) -> bool:
    return _end(world, world.rng.choice(DISPATCHERS), signal.SIGKILL)


def stop_worker(world: World, job_id: str) -> bool:
    name = _busy_worker(world, job_id)
    return name is not None and _end(world, name, signal.SIGTERM)


def stop_dispatcher(world: World, job_id: str) -> bool:
    return _end(world, world.rng.choice(DISPATCHERS), signal.SIGTERM)


def roll_the_fleet(world: World, job_id: str) -> bool:
    """SIGTERM to one process after the other, as an upgrade does."""
    for name in (*DISPATCHERS, *WORKERS):
        _end(world, name, signal.SIGTERM)
    return True


def freeze_worker_past_its_lease(world: World, job_id: str) -> bool:
    name = _busy_worker(world, job_id, f"subtask_id % {SIZE} = {LONG}")
    return name is not None and _freeze(world, name)


def freeze_dispatcher_past_its_lease(world: World, job_id: str) -> bool:
    return _freeze(world, world.rng.choice(DISPATCHERS))


def kill_guard(world: World, job_id: str) -> bool:
    """The worker starts another one, and its agents notice nothing."""
    for name in WORKERS:
        with suppress(psutil.Error):
            for child in psutil.Process(world.fleet.processes[name].pid).children():
                if "guard_program.py" in " ".join(child.cmdline()):
                    child.kill()
                    return True
    return False


def kill_agent(world: World, job_id: str) -> bool:
    """kill -9 of the next agent that is seen; its attempt fails and is tried again."""
    try:
        return wait_until(lambda: _kill_one_agent(world), "an agent runs", timeout_seconds=10)
    except AssertionError:
        return False


def _kill_one_agent(world: World) -> bool:
    workers = [world.fleet.processes[name] for name in WORKERS]
    for worker in workers:
        with suppress(psutil.Error, OSError):
            for child in psutil.Process(worker.pid).children():
                cookie = child.environ().get(COOKIE_VARIABLE, HELPERS)
                if not cookie.endswith(HELPERS):  # git is the worker's own
                    child.kill()
                    return True
    return False


_SLEEP = """
import time

_sleep = time.sleep


def sleep(seconds):
    try:
        _sleep(seconds)
    except OSError:  # libfaketime refuses to wait for an instant that has just passed
        pass


time.sleep = sleep
"""


def _set_a_clock(world: World) -> None:
    mended = world.fleet.folder / "mended"
    mended.mkdir(exist_ok=True)
    (mended / "sitecustomize.py").write_text(_SLEEP)
    world.circumstances[world.rng.choice((*DISPATCHERS, *WORKERS))].environment |= {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": world.rng.choice(["+1h", "-1h"]),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(mended), os.environ.get("PYTHONPATH")])),
    }


def clock_an_hour_off(world: World, job_id: str) -> bool:
    """The wall clock of one process is an hour ahead or behind, from its start to its end."""
    return any("FAKETIME" in special.environment for special in world.circumstances.values())


def _move_to_the_island(world: World) -> None:
    password = world.services.postgres.server.password
    database = str(world.fleet.settings.database_url).split("@/")[1].split("?")[0]
    special = world.circumstances[ISLANDER]
    special.prefix = world.island().command
    special.environment |= {
        "ORCHESTRATOR_DATABASE_URL": f"postgresql://{SUPERUSER}:{password}@{SHORE}:5432/{database}?sslmode=disable",
        "ORCHESTRATOR_BROKER_URL": f"redis://:{world.services.redis.server.password}@{SHORE}:6379/0",
    }


def one_way_partition(world: World, job_id: str) -> bool:
    """Nothing of what the servers say reaches one worker for more than a lease, while what it says reaches them."""
    if not _is_busy(world, job_id, ISLANDER):
        return False
    world.island().cut()
    time.sleep(world.fleet.settings.lease_seconds + world.rng.uniform(0.5, 3.0))
    world.island().heal()
    return True


def poison_task(world: World, job_id: str) -> bool:
    """An agent that always kills its worker ends by `max_redeliveries`, and the fleet lives on."""
    poison = {"subtask_id": 1, "title": "Poison", "agent": {"name": "shell", "command": "kill -9 $PPID; sleep 60"}}
    job = world.fleet.wait_for_end(world.fleet.submit({"title": "Poison", "subtasks": [poison]}), timeout_seconds=180)
    lost = world.fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job["id"])
    expected = ["worker_lost"] * (world.fleet.settings.max_redeliveries + 1)
    assert [row["status"] for row in lost] == expected, f"the poisoned subtask's attempts are {lost}"
    assert job["status"] == "failed", f"the poisoned job is {job['status']}"
    return True


def _busy_worker(world: World, job_id: str, at: str = "true") -> str | None:
    """The next worker that is seen with an agent at work, at a subtask that `at` describes; None when the job is over
    before there is one."""
    busy: list[str] = []
    running = f"SELECT worker FROM attempts WHERE job_id = :id AND status = 'running' AND {at}"

    def seen() -> bool:
        rows = world.fleet.rows(running, id=job_id)
        busy.extend(row["worker"].split("@")[0] for row in rows)
        return bool(busy) or world.fleet.job(job_id)["finished_at"] is not None

    wait_until(seen, "a worker is busy or the job is over", timeout_seconds=120)
    return world.rng.choice(busy) if busy else None


def _is_busy(world: World, job_id: str, name: str) -> bool:
    """Wait until this worker has an agent at work; False when the job is over before that."""
    running = "SELECT 1 FROM attempts WHERE job_id = :id AND status = 'running' AND worker = :worker"

    def seen() -> str | None:
        if world.fleet.rows(running, id=job_id, worker=f"{name}@test"):
            return "busy"
        return "over" if world.fleet.job(job_id)["finished_at"] else None

    return wait_until(seen, f"{name} is busy or the job is over", timeout_seconds=60) == "busy"


def _freeze(world: World, name: str) -> bool:
    process = world.signal(name, signal.SIGSTOP)
    time.sleep(world.fleet.settings.lease_seconds + world.rng.uniform(0.5, 2.0))
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
    return True


def _end(world: World, name: str, number: int) -> bool:
    """The service manager starts it again."""
    process = world.signal(name, number)
    wait_until(lambda: process.poll() is not None, f"{name} ends after signal {number}", timeout_seconds=60)
    wait_until(lambda: world.fleet.processes[name] is not process, f"{name} is started again")
    return True


FAULTS: Final = (
    Fault(kill_worker, costs=("worker_lost",)),
    Fault(kill_dispatcher),
    Fault(stop_worker, costs=("interrupted",)),
    Fault(stop_dispatcher),
    Fault(roll_the_fleet, costs=("interrupted",), most=SLOTS * len(WORKERS)),
    Fault(freeze_worker_past_its_lease, costs=("worker_lost",)),
    Fault(freeze_dispatcher_past_its_lease),
    Fault(kill_guard),
    Fault(kill_agent, costs=("failed",), most=1),
    Fault(clock_an_hour_off, prepare=_set_a_clock, why_not=why_no_other_clock),
    Fault(one_way_partition, costs=("worker_lost",), prepare=_move_to_the_island, why_not=why_no_island),
    Fault(poison_task, after_the_job=True),
)
