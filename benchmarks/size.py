"""What grows: (e) a worker's memory with its agents, (g) the time to look at a job with the history behind it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from benchmarks.stage import Result, median, stage
from orchestrator.dispatch.steering import cancel_job
from orchestrator.state.queries import job_view, list_jobs, newest_job
from tests.support.repositories import shell
from tests.support.waiting import wait_until

WAITING = 200
JOBS, SUBTASKS = 2000, 100


def memory_of_waiting_agents() -> list[Result]:
    """(e) The worker's own PSS, its agents' processes not counted, before and while 200 programs run."""
    if os.geteuid() != 0:
        print("  left out: a worker is closed to all but root (orchestrator.closed_process)")
        return []
    with stage(kill_grace_seconds=1.0) as here:
        here.start(slots=WAITING)
        here.run({"title": "Warm", "subtasks": [shell(n, "true") for n in range(1, 6)]})
        worker = here.fleet.processes["worker"].pid
        idle = _pss_mb(worker)
        waiting = [shell(n, "exec sleep 600") for n in range(1, WAITING + 1)]
        job_id = here.fleet.submit({"title": "Wait", "max_parallel_agents": WAITING, "subtasks": waiting})
        at_work = "SELECT 1 FROM attempts WHERE job_id = :id AND status = 'running'"
        wait_until(lambda: len(here.fleet.rows(at_work, id=job_id)) == WAITING, "all agents wait", timeout_seconds=120)
        wait_until(lambda: _children(worker) >= WAITING, "all programs run", timeout_seconds=120)
        full = _pss_mb(worker)
        cancel_job(here.fleet.client, job_id)
        here.fleet.wait_for_end(job_id, timeout_seconds=120)
    note = f"{idle:.0f} MB idle, {full:.0f} MB with {WAITING}"
    return [Result("e", "a worker's memory for a waiting agent (PSS)", (full - idle) / WAITING, "MB", 1.0, note=note)]


def _pss_mb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None, "the kernel tells each process's share"
    return int(found[1]) / 1024


def _children(pid: int) -> int:
    return sum(len(tasks.read_text().split()) for tasks in Path(f"/proc/{pid}/task").glob("*/children"))


def history() -> list[Result]:
    """(g) What `list` and `status` ask of a database that holds 200,000 attempts; the start of Python is not counted."""
    with stage() as here:
        engine = here.fleet.client.engine
        with engine.begin() as connection:
            for statement in _HISTORY:
                connection.execute(text(statement), {"jobs": JOBS, "subtasks": SUBTASKS})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
            newest = newest_job(connection)

            def listed() -> None:
                list_jobs(connection, limit=20)

            def shown() -> None:
                job_view(engine, newest_job(connection))

            assert len(job_view(engine, newest).subtasks) == SUBTASKS
            times = {"list": _ms(listed), "status": _ms(shown)}
    what = f"of {JOBS:,} jobs with {JOBS * SUBTASKS:,} attempts (median of 9)"
    return [Result("g", f"`{name}` {what}", value, "ms", 100) for name, value in times.items()]


def _ms(ask: Callable[[], None]) -> float:
    times = []
    for _ in range(9):
        began = time.perf_counter()
        ask()
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


_HISTORY = (
    """
    INSERT INTO jobs (id, title, plan, plan_digest, max_parallel_agents, parallelization_strategy, status, created_at,
                      started_at, finished_at)
    SELECT lpad(to_hex(n), 12, '0'), 'Job ' || n, '{}', '', 5, 'parallel_groups', 'completed',
           now() - make_interval(mins => n), now() - make_interval(mins => n), now() - make_interval(mins => n)
    FROM generate_series(1, :jobs) AS n WHERE :subtasks > 0
    """,
    """
    INSERT INTO groups (job_id, number, status, started_at, finished_at)
    SELECT id, 1, 'completed', now(), now() FROM jobs WHERE :subtasks > 0 AND :jobs > 0
    """,
    """
    INSERT INTO subtasks (job_id, subtask_id, group_number, title, agent, spec, status, outcome, attempts, released_at,
                          started_at, finished_at)
    SELECT id, n, 1, 'Part ' || n, 'shell', '{"requires": []}', 'completed', 'completed', 1, now(), now(), now()
    FROM jobs, generate_series(1, :subtasks) AS n WHERE :jobs > 0
    """,
    """
    INSERT INTO attempts (job_id, subtask_id, number, worker, agent, status, lease_token, lease_expires_at, finished_at)
    SELECT job_id, subtask_id, 1, 'worker@host', 'shell', 'completed', job_id || '-' || subtask_id, now(), now()
    FROM subtasks WHERE :jobs > 0 AND :subtasks > 0
    """,
    """
    INSERT INTO events (job_id, group_number, subtask_id, attempt, name)
    SELECT job_id, 1, subtask_id, 1, name FROM subtasks, unnest(ARRAY['attempt.started', 'attempt.finished']) AS name
    WHERE :jobs > 0 AND :subtasks > 0
    """,
)
