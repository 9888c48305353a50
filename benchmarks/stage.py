"""Where a measurement happens: servers, one dispatcher, one worker, a client; and the count afterwards.

PostgreSQL has the truth: `settled` raises unless every subtask was run exactly once, with its two events.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.fleet import TestFleet, open_fleet
from tests.support.services import Services
from tests.support.waiting import wait_until

USERS_SETTINGS = {
    "lease_seconds": 30.0,
    "renew_seconds": 2.0,
    "reconcile_seconds": 2.0,
    "body_grace_seconds": 5.0,
    "kill_grace_seconds": 2.0,
    "retry_initial_seconds": 2.0,
    "republish_seconds": 30.0,
}
"""The defaults, which the tests' fleet shortens."""


@dataclass(frozen=True)
class Result:
    """One line of the report. `value` and `target` are in `unit`; the smaller the better unless `more_is_better`."""

    key: str
    what: str
    value: float
    unit: str
    target: float | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target


@dataclass(frozen=True)
class Stage:
    fleet: TestFleet
    services: Services
    folder: Path

    def start(self, *, slots: int) -> None:
        self.fleet.start_dispatcher("dispatcher")
        self.fleet.start_worker("worker", slots=slots, ORCHESTRATOR_SLOTS=str(slots))
        self.wait_for_nodes(2)

    def stop(self) -> None:
        """Stop the dispatcher and the workers; the servers stay for the next ones."""
        for name in list(self.fleet.processes):
            self.fleet.stop(name)

    def wait_for_nodes(self, number: int) -> None:
        inspect = self.fleet.client.app.control.inspect
        wait_until(lambda: len(inspect(timeout=1.0).ping() or {}) >= number, f"{number} nodes answer")

    def run(self, plan: dict[str, Any]) -> str:
        """Run the job to its end and count what is stored of it. Returns its id."""
        job_id = self.fleet.submit(plan)
        self.fleet.wait_for_end(job_id, timeout_seconds=300)
        self.settled(job_id)
        return job_id

    def settled(self, job_id: str) -> None:
        """Every subtask completed by one attempt, each attempt with its events, each group merged by its callback."""
        (count,) = self.fleet.rows(
            """
            SELECT (SELECT status FROM jobs WHERE id = :id) AS job,
                   (SELECT count(*) FROM subtasks WHERE job_id = :id) AS subtasks,
                   (SELECT count(*) FROM subtasks WHERE job_id = :id AND status = 'completed') AS completed,
                   (SELECT count(*) FROM attempts WHERE job_id = :id AND status = 'completed') AS attempts,
                   (SELECT count(*) FROM events WHERE job_id = :id AND name = 'attempt.started') AS started,
                   (SELECT count(*) FROM events WHERE job_id = :id AND name = 'attempt.finished') AS finished,
                   (SELECT count(*) FROM group_runs WHERE job_id = :id AND woken_by <> 'callback') AS rescued
            """,
            id=job_id,
        )
        number = count["subtasks"]
        wanted = {"job": "completed", "subtasks": number, "completed": number, "attempts": number}
        wanted |= {"started": number, "finished": number, "rescued": 0}
        if dict(count) != wanted:
            raise AssertionError(f"the job is not what was to be measured: {dict(count)}")

    def seconds_of(self, job_id: str) -> float:
        """From the job's start to its end, by the database's clock."""
        (row,) = self.fleet.rows(
            "SELECT extract(epoch FROM finished_at - started_at) AS s FROM jobs WHERE id=:id", id=job_id
        )
        return float(row["s"])

    def gaps_ms(self, job_id: str) -> list[float]:
        """Between the last agent's end of each group and the first agent's start of the next one, in milliseconds."""
        rows = self.fleet.rows(
            """
            SELECT s.group_number, extract(epoch FROM min(a.agent_started_at)) AS first,
                   extract(epoch FROM max(a.agent_started_at + make_interval(secs => a.agent_duration_seconds))) AS last
            FROM attempts a JOIN subtasks s USING (job_id, subtask_id) WHERE job_id = :id
            GROUP BY s.group_number ORDER BY s.group_number
            """,
            id=job_id,
        )
        return [1000 * float(after["first"] - before["last"]) for before, after in pairwise(rows)]

    def python(self, *args: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process of this Python beside the fleet's; its output goes into the stage's folder."""
        with (self.folder / "processes.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *args],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def stage(**settings: Any) -> Iterator[Stage]:
    """Fresh servers with the settings that users have. Everything of it is gone afterwards."""
    services = Services()
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as name:
        folder = Path(name)
        services.redis.flush()
        fleet = open_fleet(
            services.postgres.new_database(), services.redis.url, folder, **{**USERS_SETTINGS, **settings}
        )
        try:
            yield Stage(fleet, services, folder)
        finally:
            fleet.close()
            services.close()


def no_ops(groups: int, size: int, *, seconds: float = 0.0, at_once: int | None = None) -> dict[str, Any]:
    """A plan of so many groups of so many in-process no-ops, all of a group at once unless said otherwise."""
    return {
        "title": f"{groups} groups of {size} no-ops",
        "max_parallel_agents": at_once or size,
        "defaults": {"agent": {"name": "no-op", "seconds": seconds}},
        "subtasks": [
            {"subtask_id": 1 + group * size + number, "title": "Nothing", "parallel_group": group + 1}
            for group in range(groups)
            for number in range(size)
        ],
    }


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
