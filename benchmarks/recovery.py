"""(h) What recovery takes when something is lost, and what it costs while nothing is."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psutil

from benchmarks.stage import Result, Stage, no_ops, stage
from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.steering import cancel_job
from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import HELPERS
from orchestrator.recovery.reconciler import Reconciler
from tests.support.repositories import shell
from tests.support.waiting import wait_until

LEASE_SECONDS = 5.0
AGENTS = 10
TICKS = 100
IGNORES_TERM = "trap '' TERM; while true; do sleep 0.1; done"


def lost_worker() -> list[Result]:
    """kill -9 of a worker with agents at work, until they are at work elsewhere, beyond the lease that it held."""
    with stage(lease_seconds=LEASE_SECONDS) as place:
        place.fleet.start_dispatcher()
        place.fleet.start_worker("doomed", slots=AGENTS)
        place.wait_for_nodes(2)
        command = 'if [ "$ORCHESTRATOR_ATTEMPT_NUMBER" = 1 ]; then sleep 600; fi'
        agents = [shell(n, command) for n in range(1, AGENTS + 1)]
        job_id = place.fleet.submit({"title": "Lost", "max_parallel_agents": AGENTS, "subtasks": agents})
        wait_until(lambda: len(_agents(place)) >= AGENTS, "all agents run")
        place.fleet.start_worker("heir", slots=AGENTS)
        place.wait_for_nodes(3)
        killed = time.time()
        place.fleet.stop("doomed", signal.SIGKILL)
        place.fleet.wait_for_end(job_id)
        started = (
            "SELECT extract(epoch FROM max(agent_started_at)) AS at FROM attempts WHERE job_id = :id AND number = 2"
        )
        ((row),) = place.fleet.rows(started, id=job_id)
    what = f"a killed worker's {AGENTS} agents run elsewhere, beyond the lease of {LEASE_SECONDS:g} s"
    return [Result("h", what, 1000 * (float(row["at"]) - killed - LEASE_SECONDS), "ms", 5000)]


def cancelled_job() -> list[Result]:
    """`cancel`, until nothing of the job's agents is alive on two workers."""
    results = []
    for what, command in (("that end on TERM", "sleep 600"), ("that ignore TERM", IGNORES_TERM)):
        with stage() as place:
            place.start(slots=AGENTS // 2)
            place.fleet.start_worker("second", slots=AGENTS // 2)
            place.wait_for_nodes(3)
            agents = [shell(n, command) for n in range(1, AGENTS + 1)]
            job_id = place.fleet.submit({"title": "Cancel", "max_parallel_agents": AGENTS, "subtasks": agents})
            in_progress = "SELECT 1 FROM attempts WHERE job_id = :id AND status = 'running'"
            wait_until(lambda: len(place.fleet.rows(in_progress, id=job_id)) == AGENTS, "all agents run")  # noqa: B023
            wait_until(lambda: len(_agents(place)) >= AGENTS, "all agents live")
            began = time.monotonic()
            cancel_job(place.fleet.client, job_id)
            wait_until(lambda: not _agents(place), "none is alive")
            seconds = time.monotonic() - began
        results.append(Result("h", f"`cancel` until {AGENTS} agents {what} are gone", 1000 * seconds, "ms", 5000))
    return results


def reconciler_at_rest() -> list[Result]:
    """One tick's processor time, PostgreSQL's included, as a share of a core at the users' interval."""
    with stage() as place:
        fleet = place.fleet.client
        start_job(fleet, place.fleet.submit(no_ops(1, 1000, at_once=1)))
        with fleet.engine.begin() as connection:  # nothing is due: a healthy fleet is at work
            connection.exec_driver_sql("UPDATE outbox SET due_at = NULL")
        reconciler = Reconciler(fleet)
        reconciler.tick()
        before = time.thread_time() + _cpu_seconds(place)
        for _ in range(TICKS):
            found = reconciler.tick()
            if found:
                raise AssertionError(f"the fleet was to be at rest, and {found} stood still")
        seconds = (time.thread_time() + _cpu_seconds(place) - before) / TICKS
        reconciler.stop()
    share = 100 * seconds / fleet.settings.reconcile_seconds
    note = f"{1000 * seconds:.1f} ms a tick, PostgreSQL's share included"
    return [Result("h", "a reconciler at rest, of one core", share, "%", 1, note=note)]


def price_of_recovery() -> list[Result]:
    """The no-op benchmark with leases and reconciler as users have them, against one where both sleep."""
    asleep = {"lease_seconds": 3600.0, "renew_seconds": 3600.0, "reconcile_seconds": 3600.0}
    with stage() as awake, stage(**asleep) as sleeping:
        for place in (awake, sleeping):
            place.start(slots=20)
            place.run(no_ops(1, 50))
        seconds = [[place.seconds_of(place.run(no_ops(10, 50))) for place in (awake, sleeping)] for _ in range(4)]
    with_it, without = (min(times) for times in zip(*seconds, strict=True))
    shown = ", ".join(f"{on:.2f} and {off:.2f} s" for on, off in seconds)
    what = "10 groups × 50 no-ops with leases and reconciler, without them = 1"
    return [Result("h", what, without / with_it, "×", 0.95, more_is_better=True, note=f"the best of {shown}")]


def _agents(place: Stage) -> list[int]:
    """The processes of the fleet's agents, whatever they have become."""
    return [pid for pid, cookie in _cookies(place) if not cookie.endswith(HELPERS)]


def _cookies(place: Stage) -> Iterator[tuple[int, str]]:
    for process in psutil.process_iter():
        try:
            cookie = process.environ().get(COOKIE_VARIABLE)
            if cookie and process.cwd().startswith(str(place.folder)):
                yield process.pid, cookie
        except (psutil.Error, OSError):
            continue


def _cpu_seconds(place: Stage) -> float:
    """What PostgreSQL's processes have used, those that have ended included."""
    server = psutil.Process(place.services.postgres.pid)
    times = server.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in server.children():
        own = child.cpu_times()
        total += own.user + own.system
    return total
