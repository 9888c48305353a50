"""A fleet of real processes for tests: dispatchers and workers on a test's own database and broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from orchestrator.agent_names import known_agents
from orchestrator.dispatch.fleet import Fleet, join_fleet
from orchestrator.dispatch.submission import submit
from orchestrator.plan.validate import validate_plan
from orchestrator.settings import Settings, load_settings
from orchestrator.task_names import CONTROL_QUEUE, queues_of_worker
from tests.support.waiting import wait_until


@dataclass
class TestFleet:
    """Processes and a client of one fleet. Every process that it started is gone after `close`."""

    __test__ = False

    settings: Settings
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    base_environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """What its processes see besides their settings."""

    def __post_init__(self) -> None:
        self.client: Fleet = join_fleet(self.settings, name="test client")

    def start_dispatcher(
        self, name: str = "dispatcher", *, prefix: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        return self._start(name, [CONTROL_QUEUE], 4, prefix, environment)

    def start_worker(
        self,
        name: str = "worker",
        *,
        slots: int = 8,
        capabilities: Sequence[str] = (),
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """`prefix` is a command that becomes the worker, such as `nsenter`."""
        return self._start(name, queues_of_worker(capabilities), slots, prefix, environment)

    def _start(
        self, name: str, queues: Sequence[str], slots: int, prefix: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--pool", "threads"),
                *("--concurrency", str(slots), "--queues", ",".join(queues), "--hostname", f"{name}@test"),
                *("--without-mingle", "--without-gossip", "--loglevel", "INFO"),
            ],
            env={**self.base_environment, **self.variables(), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes[name] = process
        return process

    def variables(self) -> dict[str, str]:
        said = self.settings.model_dump(mode="json", exclude_none=True)
        return {f"ORCHESTRATOR_{key.upper()}": _as_variable(value) for key, value in said.items() if value != []}

    def program(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a user of this fleet runs it."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env={**os.environ, **self.variables(), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def submit(self, plan: Mapping[str, Any], **kwargs: Any) -> str:
        valid = validate_plan(plan, known_agents=known_agents(self.settings))
        return submit(self.client, valid, **kwargs).job_id

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """What a query answers, asked again where a fault has cut this connection of the test's own."""
        try:
            return self._ask(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return self._ask(statement, parameters)

    def _ask(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self.client.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(text(statement), parameters)]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.rows("SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def subtasks(self, job_id: str) -> dict[int, dict[str, Any]]:
        found = self.rows("SELECT * FROM subtasks WHERE job_id = :id ORDER BY subtask_id", id=job_id)
        return {row["subtask_id"]: row for row in found}

    def wait_for_end(self, job_id: str, *, timeout_seconds: float = 60) -> dict[str, Any]:
        """The job's row once it is final; what its log files say is in the failure of a job that never is."""
        try:
            wait_until(lambda: self._is_final(job_id), f"job {job_id} is final", timeout_seconds=timeout_seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(job_id)}") from None
        return self.job(job_id)

    def _is_final(self, job_id: str) -> bool:
        return bool(self.rows("SELECT 1 FROM jobs WHERE id = :id AND finished_at IS NOT NULL", id=job_id))

    def describe(self, job_id: str) -> str:
        events = self.rows(
            "SELECT name, subtask_id, attempt, data FROM events WHERE job_id = :id ORDER BY id", id=job_id
        )
        logs = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))
        return "\n".join(str(event) for event in events[-30:]) + "\n" + logs

    def stop(self, name: str, signal_number: int = signal.SIGTERM, *, timeout_seconds: float = 20) -> None:
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(signal_number)
            try:
                process.wait(timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(
                    f"{name} did not end within {timeout_seconds} s of signal {signal_number}"
                ) from None

    def close_processes(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for name in list(self.processes):
            self.stop(name)

    def close(self) -> None:
        self.close_processes()
        self.client.engine.dispose()
        self.client.app.close()


def _as_variable(value: Any) -> str:
    match value:
        case dict():
            return json.dumps(value)
        case list():
            return ",".join(value)
        case _:
            return str(value)


def open_fleet(database: str, broker: str, folder: Path, **settings: Any) -> TestFleet:
    """A fleet without processes yet. Its clocks are short, so that tests need not wait for what users would not."""
    quick = {
        "lease_seconds": 3.0,
        "renew_seconds": 0.3,
        "reconcile_seconds": 0.3,
        "body_grace_seconds": 2.0,
        "kill_grace_seconds": 1.0,
        "retry_initial_seconds": 0.2,
        "republish_seconds": 5.0,
    }
    return TestFleet(
        load_settings(database_url=database, broker_url=broker, state_dir=folder / "state", **{**quick, **settings}),
        folder,
    )
