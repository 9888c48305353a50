"""What came of a job, for programs: its end, its subtasks' results, and the record of each group run.

Durations are seconds, times are aware datetimes of the database's clock; `None` means that it never came to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Row, select, text

from orchestrator.errors import UnknownJob
from orchestrator.ledger import NOTHING_TOLD, Spending, total
from orchestrator.state.spending import spending_by_subtask
from orchestrator.state.tables import jobs


@dataclass(frozen=True)
class SubtaskResult:
    """How a subtask ended. `status` is one of completed, failed, timeout, cancelled, skipped; `outcome` says more exactly
    why.

    `result` is what the agent said at its end, `error` what went wrong, in words. `duration_seconds` is the time of its
    last attempt's agent, without workspace, check and push. `commit` is on the integration branch when `merged`. `spent`
    is the sum over all its attempts, `usage` (tokens by kind) and `cost_usd` are parts of it.
    """

    subtask_id: int
    title: str
    group_number: int
    agent: str
    status: str
    outcome: str | None
    result: str | None
    error: str | None
    duration_seconds: float = 0.0
    attempts: int = 0
    commit: str | None = None
    merged: bool = False
    files_changed: tuple[str, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    worker: str | None = None
    spent: Spending = NOTHING_TOLD


@dataclass(frozen=True)
class JobResult:
    """A job's end. `status` is completed, failed or cancelled, `reason` and `error` say why it did not simply complete.

    `branch` and `head_commit` are where its work was merged, None without a repository.
    """

    job_id: str
    title: str
    status: str
    reason: str | None
    error: str | None
    branch: str | None
    head_commit: str | None
    duration_seconds: float
    subtasks: tuple[SubtaskResult, ...]

    @cached_property
    def spent(self) -> Spending:
        return total(subtask.spent for subtask in self.subtasks)

    @property
    def succeeded(self) -> bool:
        return self.status == "completed"


@dataclass(frozen=True)
class ParallelAttempt:
    """The record of one group run, in the original coordinator's words.

    `total_duration_seconds` is the group run's wall time, `sequential_estimate_seconds` the sum of the completed agents'
    durations, `speedup_factor` the second divided by the first: failures and retries do not raise it. `success` is false
    as soon as one of its subtasks failed, a change conflicted or the group's check was red.
    """

    id: int
    job_id: str
    group_number: int
    number: int
    num_agents: int
    agent_ids: tuple[int, ...]
    subtask_ids: tuple[int, ...]
    success: bool
    failure_reason: str | None
    conflict_detected: bool
    conflict_details: Any
    total_duration_seconds: float
    sequential_estimate_seconds: float
    speedup_factor: float | None
    max_concurrent_agents: int
    total_token_usage: int | None
    failed_agent_count: int
    parallelization_strategy: str
    fallback_to_sequential: bool
    execution_metadata: Mapping[str, Any]
    started_at: datetime
    completed_at: datetime

    @property
    def parent_task_id(self) -> Any:
        """The caller's own number for the whole, if the attempt was logged with one."""
        return self.execution_metadata.get("parent_task_id")


_SUBTASKS: Final = text(
    """
    SELECT s.subtask_id, s.title, s.group_number, s.agent, s.status, s.outcome, s.result, s.error, s.attempts, s.commit,
           s.merged_at IS NOT NULL AS merged, last.files_changed, last.worker,
           coalesce(last.agent_duration_seconds, extract(epoch FROM last.finished_at - last.started_at), 0)::float
               AS duration_seconds
    FROM subtasks s
    LEFT JOIN LATERAL (
        SELECT * FROM attempts a WHERE a.job_id = s.job_id AND a.subtask_id = s.subtask_id
        ORDER BY a.number DESC LIMIT 1
    ) last ON true
    WHERE s.job_id = :job_id ORDER BY s.subtask_id
    """
)


def job_result(connection: Connection, job_id: str) -> JobResult:
    """The result of a job that has ended; of one that has not, as far as it is. Raises `UnknownJob`."""
    job = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if job is None:
        raise UnknownJob(f"There is no job {job_id}.", context={"job": job_id})
    spent = spending_by_subtask(connection, job_id)
    lasted = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else 0.0
    return JobResult(
        job_id=job_id,
        title=job.title,
        status=job.status,
        reason=job.reason,
        error=job.error,
        branch=job.branch,
        head_commit=job.head_commit,
        duration_seconds=lasted,
        subtasks=tuple(
            _subtask_result(row, spent.get(row.subtask_id, NOTHING_TOLD))
            for row in connection.execute(_SUBTASKS, {"job_id": job_id})
        ),
    )


def _subtask_result(row: Row[Any], spent: Spending) -> SubtaskResult:
    plain = {**row._mapping, "files_changed": tuple(row.files_changed or ())}
    return SubtaskResult(**plain, usage=spent.usage, cost_usd=spent.cost_usd, spent=spent)


def parallel_attempts_of_job(connection: Connection, job_id: str) -> list[ParallelAttempt]:
    """The merged group runs of a job, oldest first."""
    return _attempts(connection, "job_id = :job_id", job_id=job_id)


def parallel_attempts_with(connection: Connection, metadata_json: str) -> list[ParallelAttempt]:
    """The merged group runs whose metadata holds all that this JSON object holds, oldest first."""
    return _attempts(connection, "execution_metadata @> CAST(:metadata AS jsonb)", metadata=metadata_json)


def _attempts(connection: Connection, condition: str, **values: Any) -> list[ParallelAttempt]:
    names = [column.name for column in fields(ParallelAttempt)]
    # The condition is one of the two above, never what somebody wrote.
    statement = f"SELECT {', '.join(names)} FROM group_runs WHERE completed_at IS NOT NULL AND {condition} ORDER BY id"  # noqa: S608
    return [
        ParallelAttempt(
            **{**row._mapping, "agent_ids": tuple(row.agent_ids or ()), "subtask_ids": tuple(row.subtask_ids)}
        )
        for row in connection.execute(text(statement), values)
    ]


def annotate_parallel_attempt(connection: Connection, attempt_id: int, metadata_json: str) -> bool:
    """Add to a merged group run's metadata. False: there is no such record (any more)."""
    found = connection.execute(
        text(
            "UPDATE group_runs SET execution_metadata = execution_metadata || CAST(:metadata AS jsonb)"
            " WHERE id = :id AND completed_at IS NOT NULL RETURNING id"
        ),
        {"id": attempt_id, "metadata": metadata_json},
    )
    return found.first() is not None
