"""All that happened in one job, for reports and for archives: read in one snapshot, a fixed number of statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, select

from orchestrator.errors import UnknownJob
from orchestrator.state.group_checks import GroupCheck, group_checks
from orchestrator.state.queries import read_job, snapshot
from orchestrator.state.tables import attempts, events, group_runs, groups, jobs, subtasks
from orchestrator.state.views import EventView, JobView


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt. The agent's own time lies within it: workspace, check and push come before and after."""

    id: int
    subtask_id: int
    number: int
    resumed_from: int | None
    worker: str
    agent: str
    status: str
    error: str | None
    started_at: datetime
    finished_at: datetime | None
    agent_started_at: datetime | None
    agent_duration_seconds: float | None
    files_changed: tuple[str, ...]
    exit_code: int | None
    commit: str | None
    ref: str | None
    model: str | None
    usage: Mapping[str, Any] | None
    cost_usd: float | None
    cost_estimated: bool
    cost_unknown: bool
    reported_usage: Mapping[str, Any] | None
    reported_cost_usd: float | None


@dataclass(frozen=True)
class JobHistory:
    """A job with every attempt, in the order of their starts, and every event, in the order of their ids."""

    job: JobView
    attempts: tuple[AttemptRecord, ...]
    events: tuple[EventView, ...]
    checks: tuple[GroupCheck, ...] = ()
    """Those of its groups, in the order in which they ended."""

    @cached_property
    def origin(self) -> datetime:
        """The moment from which a report counts: the job's start, or its submission where it has not started. A `retry`
        gives the job a new start, so what began before it counts too."""
        runs = [run.started_at for group in self.job.groups for run in group.runs]
        attempts = [attempt.started_at for attempt in self.attempts]
        return min([self.job.started_at or self.job.created_at, *runs, *attempts])


def job_history(engine: Engine, job_id: str) -> JobHistory:
    """Read it. Raises `UnknownJob` where the job is gone."""
    with snapshot(engine) as connection:
        job = read_job(connection, job_id)
        attempt_rows = connection.execute(
            select(*(attempts.c[name] for name in AttemptRecord.__dataclass_fields__))
            .where(attempts.c.job_id == job_id)
            .order_by(attempts.c.started_at, attempts.c.id)
        ).all()
        event_rows = connection.execute(
            select(*(events.c[name] for name in EventView.__dataclass_fields__))
            .where(events.c.job_id == job_id)
            .order_by(events.c.id)
        ).all()
        checks = group_checks(connection, job_id)
    return JobHistory(
        job,
        tuple(
            AttemptRecord(**{**row._mapping, "files_changed": tuple(row.files_changed or ())}) for row in attempt_rows
        ),
        tuple(EventView(**row._mapping) for row in event_rows),
        tuple(checks),
    )


_LEFT_OUT: Final = {"job_id", "lease_token", "lease_expires_at", "merge_token", "merge_lease_expires_at"}
"""What only the machinery needs, and tokens."""


def job_archive(engine: Engine, job_id: str) -> dict[str, Any]:
    """A job's rows as the tables hold them: `job`, `groups`, `group_runs`, `subtasks`, `attempts`, `events`.

    Plan and prompts are part of it, leases and messages are not. Raises `UnknownJob` where the job is gone.
    """
    with snapshot(engine) as connection:
        job = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if job is None:
            raise UnknownJob(f"There is no job {job_id} any more.", context={"job": job_id})
        return {
            "job": dict(job._mapping),
            "groups": _rows(connection, groups, job_id, "number"),
            "group_runs": _rows(connection, group_runs, job_id, "id"),
            "subtasks": _rows(connection, subtasks, job_id, "subtask_id"),
            "attempts": _rows(connection, attempts, job_id, "id"),
            "events": _rows(connection, events, job_id, "id"),
        }


def _rows(connection: Connection, table: Table, job_id: str, order: str) -> list[dict[str, Any]]:
    columns = [column for column in table.c if column.name not in _LEFT_OUT]
    found = connection.execute(select(*columns).where(table.c.job_id == job_id).order_by(table.c[order]))
    return [dict(row._mapping) for row in found]
