"""Transitions of a subtask and of its attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from orchestrator.outcomes import Outcome, SubtaskOutcome, subtask_status_after
from orchestrator.retry_policy import Retry
from orchestrator.state.events import record_event
from orchestrator.state.one_trip import Statement, in_one_trip


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt, and what it takes to run it."""

    attempt_id: int
    lease_token: str
    job_id: str
    job_title: str
    goal: str
    repo: str | None
    base_commit: str | None
    deadline_monotonic: float | None
    """The job's deadline on this process's monotonic clock, so that it holds while the database is away."""
    retry_enabled: bool
    subtask_id: int
    title: str
    agent: str
    group_number: int
    number: int
    """The attempt's number; attempts of a subtask count from 1."""
    spec: Mapping[str, Any]
    feedback: str | None
    failures: int
    redeliveries: int
    provider_faults: int

    def seconds_to_deadline(self) -> float | None:
        """What is left until the job's deadline, negative after it; None without one."""
        return None if self.deadline_monotonic is None else self.deadline_monotonic - time.monotonic()

    @property
    def deadline_passed(self) -> bool:
        left = self.seconds_to_deadline()
        return left is not None and left <= 0


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended, as it is recorded: times in seconds, `agent_started_at` in UTC."""

    outcome: Outcome
    error: str | None = None
    result: str | None = None
    commit: str | None = None
    ref: str | None = None
    files_changed: Sequence[str] = ()
    exit_code: int | None = None
    signal: int | None = None
    check_output: str | None = None
    session_id: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    agent_started_at: datetime | None = None
    agent_duration_seconds: float | None = None
    retry_after_seconds: float | None = None


def storable(value: Any) -> Any:
    """A text as PostgreSQL takes it: no NUL, no half of a surrogate pair. Programs print such things."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


_CLAIM = text(
    """
    WITH claimed AS (
        UPDATE subtasks s
        SET status = 'in_progress', attempts = s.attempts + 1, started_at = coalesce(s.started_at, clock_timestamp())
        FROM jobs j, groups g
        WHERE s.job_id = :job_id AND s.subtask_id = :subtask_id
          AND s.status = 'pending' AND s.released_at IS NOT NULL
          AND (s.not_before IS NULL OR s.not_before <= clock_timestamp())
          AND j.id = s.job_id AND j.status = 'running' AND j.cancel_requested_at IS NULL
          AND g.job_id = s.job_id AND g.number = s.group_number AND g.status = 'running'
          AND (CAST(:chord_id AS text) IS NULL OR :chord_id = (
                SELECT chord_id FROM group_runs r WHERE r.job_id = g.job_id AND r.group_number = g.number
                ORDER BY r.id DESC LIMIT 1))
        RETURNING s.job_id, s.subtask_id, s.title, s.agent, s.group_number, s.attempts AS number, s.spec, s.feedback,
                  s.failures, s.redeliveries, s.provider_faults, j.title AS job_title, j.goal, j.repo, g.base_commit,
                  extract(epoch FROM j.deadline_at - clock_timestamp()) AS seconds_to_deadline,
                  coalesce((j.plan->>'retry_failed_agents')::boolean, true) AS retry_enabled
    ), attempt AS (
        INSERT INTO attempts (job_id, subtask_id, number, group_run_id, worker, agent, base_commit, started_at,
                              lease_token, lease_expires_at)
        SELECT job_id, subtask_id, number,
               (SELECT max(id) FROM group_runs r WHERE r.job_id = c.job_id AND r.group_number = c.group_number),
               :worker, agent, base_commit, clock_timestamp(),
               :token, clock_timestamp() + make_interval(secs => :lease_seconds)
        FROM claimed c
        RETURNING id
    ), quiet AS (
        UPDATE outbox SET due_at = NULL
        WHERE job_id = :job_id AND subtask_id = :subtask_id AND EXISTS (SELECT FROM claimed)
    ), event AS (
        INSERT INTO events (job_id, group_number, subtask_id, attempt, name, data)
        SELECT job_id, group_number, subtask_id, number, 'attempt.started', jsonb_build_object('worker', CAST(:worker AS text))
        FROM claimed
        RETURNING pg_notify('orchestrator_events', job_id)
    )
    SELECT claimed.*, attempt.id AS attempt_id FROM claimed, attempt, event
    """
)


def claim(
    engine: Engine,
    job_id: str,
    subtask_id: int,
    *,
    chord_id: str | None,
    worker: str,
    lease_token: str,
    lease_seconds: float,
) -> Claim | None:
    """pending → in_progress, with a new running attempt under a lease: one statement, one round trip.

    `chord_id` is that of the message, None where it belongs to none. None comes back when the subtask is not released,
    in its back-off, at work elsewhere or final, when the job is ending, and for a message of an earlier group run: it
    would count in a chord that nobody waits for. Copies, late messages and messages out of order all end here.
    """
    parameters = {
        "job_id": job_id,
        "subtask_id": subtask_id,
        "chord_id": chord_id,
        "worker": worker,
        "token": lease_token,
        "lease_seconds": lease_seconds,
    }
    (rows,) = in_one_trip(engine, (_CLAIM, parameters))
    if not rows:
        return None
    values = rows[0]
    left = values.pop("seconds_to_deadline")
    deadline = None if left is None else time.monotonic() + float(left)
    return Claim(**values, lease_token=lease_token, deadline_monotonic=deadline)


def is_final(connection: Connection, job_id: str, subtask_id: int) -> bool:
    """Whether the subtask has ended. A subtask that does not exist (its job was pruned) counts as ended."""
    open_one = connection.execute(
        text("SELECT 1 FROM subtasks WHERE job_id = :job_id AND subtask_id = :subtask_id AND finished_at IS NULL"),
        {"job_id": job_id, "subtask_id": subtask_id},
    ).first()
    return open_one is None


_END_ATTEMPT = text(
    """
    WITH attempt AS (
        UPDATE attempts
        SET status = :outcome, error = :error, result = :result, commit = :commit, ref = :ref,
            files_changed = CAST(:files_changed AS jsonb), exit_code = :exit_code, signal = :signal,
            check_output = :check_output, session_id = :session_id, usage = CAST(:usage AS jsonb), cost_usd = :cost_usd,
            agent_started_at = :agent_started_at, agent_duration_seconds = :agent_duration_seconds,
            finished_at = clock_timestamp()
        WHERE lease_token = :token AND status = 'running' AND job_id = :job_id AND subtask_id = :subtask_id
        RETURNING number
    ), subtask AS (
        UPDATE subtasks s
        SET status = :status, outcome = :outcome, error = :error, result = :result, commit = :winner,
            feedback = :feedback,
            failures = failures + :failure, redeliveries = redeliveries + :redelivery,
            provider_faults = CASE WHEN :provider_fault = 1 THEN provider_faults + 1 ELSE 0 END,
            released_at = CASE WHEN :status = 'pending' THEN NULL ELSE released_at END,
            not_before = clock_timestamp() + make_interval(secs => :wait_seconds),
            finished_at = CASE WHEN :status = 'pending' THEN NULL ELSE clock_timestamp() END
        FROM attempt
        WHERE s.job_id = :job_id AND s.subtask_id = :subtask_id AND s.status = 'in_progress'
        RETURNING s.group_number, attempt.number
    ), answered AS (
        DELETE FROM outbox
        WHERE job_id = :job_id AND subtask_id = :subtask_id AND :status <> 'pending' AND EXISTS (SELECT FROM attempt)
    ), event AS (
        INSERT INTO events (job_id, group_number, subtask_id, attempt, name, data)
        SELECT :job_id, group_number, :subtask_id, number, 'attempt.finished', CAST(:event AS jsonb) FROM subtask
        RETURNING pg_notify('orchestrator_events', job_id)
    )
    SELECT number FROM attempt, event
    """
)


def end_statement(
    job_id: str,
    subtask_id: int,
    lease_token: str,
    end: AttemptEnd,
    *,
    retry: Retry | None,
    feedback: str | None,
    failure: bool = False,
    redelivery: bool = False,
    provider_fault: bool = False,
) -> Statement:
    """The attempt's outcome, and in_progress → pending (with a retry) or final: one statement that answers with a row,
    or without one where the lease is not ours any more.

    The job's row is to be locked before it. A retry gives the place back: `release` is to follow in the same transaction.
    """
    status = "pending" if retry else subtask_status_after(end.outcome)
    values = {name: storable(value) for name, value in vars(end).items()}
    return _END_ATTEMPT, {
        **values,
        "files_changed": json.dumps([storable(name) for name in end.files_changed]),
        "usage": json.dumps(dict(end.usage)),
        "job_id": job_id,
        "subtask_id": subtask_id,
        "token": lease_token,
        "status": status,
        "winner": end.commit if end.outcome is Outcome.COMPLETED else None,
        "feedback": storable(feedback),
        "failure": int(failure),
        "redelivery": int(redelivery),
        "provider_fault": int(provider_fault),
        "wait_seconds": retry.after_seconds if retry else None,
        "event": json.dumps(
            {
                "outcome": end.outcome,
                "error": values["error"],
                "subtask_status": status,
                "retry_after_seconds": retry.after_seconds if retry else None,
            }
        ),
    }


def end_attempt(connection: Connection, ending: Statement) -> bool:
    """Execute what `end_statement` has made. False: the lease is not ours any more."""
    statement, parameters = ending
    return connection.execute(statement, parameters).first() is not None


def end_pending(
    connection: Connection, job_id: str, status: str, error: str, *, subtask_ids: Sequence[int] | None = None
) -> list[int]:
    """pending → skipped or cancelled, for the subtasks named or for all of the job; their messages die with it."""
    rows = connection.execute(
        text(
            """
            WITH ended AS (
                UPDATE subtasks
                SET status = :status, outcome = :outcome, error = :error, released_at = NULL, not_before = NULL,
                    finished_at = clock_timestamp()
                WHERE job_id = :job_id AND status = 'pending'
                  AND (CAST(:subtask_ids AS integer[]) IS NULL OR subtask_id = ANY(:subtask_ids))
                RETURNING subtask_id
            ), dead AS (
                DELETE FROM outbox WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM ended)
            )
            SELECT subtask_id FROM ended ORDER BY subtask_id
            """
        ),
        {
            "job_id": job_id,
            "status": status,
            "outcome": SubtaskOutcome.SKIPPED if status == "skipped" else Outcome.CANCELLED,
            "error": error,
            "subtask_ids": None if subtask_ids is None else list(subtask_ids),
        },
    )
    ended = [row.subtask_id for row in rows]
    if ended:
        record_event(connection, f"subtasks.{status}", job_id, subtask_ids=ended, error=error)
    return ended


def mark_merged(connection: Connection, job_id: str, subtask_ids: Sequence[int]) -> None:
    """Note that these subtasks' changes are on the integration branch; no status changes."""
    connection.execute(
        text("UPDATE subtasks SET merged_at = clock_timestamp() WHERE job_id = :job_id AND subtask_id = ANY(:ids)"),
        {"job_id": job_id, "ids": list(subtask_ids)},
    )


def fail_merged(connection: Connection, job_id: str, subtask_id: int, outcome: str, error: str) -> None:
    """completed → failed: the merge could not take its change, or the group's check stayed red with it."""
    connection.execute(
        text(
            "UPDATE subtasks SET status = 'failed', outcome = :outcome, error = :error"
            " WHERE job_id = :job_id AND subtask_id = :subtask_id AND status = 'completed'"
        ),
        {"job_id": job_id, "subtask_id": subtask_id, "outcome": outcome, "error": error},
    )
    record_event(connection, "subtask.failed_at_merge", job_id, subtask_id=subtask_id, outcome=outcome, error=error)


def reopen(
    connection: Connection,
    job_id: str,
    subtask_ids: Sequence[int],
    *,
    feedback: str | None,
    outcome: str | None,
    counts_as_failure: bool,
) -> None:
    """Final → pending. Sent back by a merge it keeps its counts and one failure is added; asked for by a user
    (`counts_as_failure=False`) they start anew. A change that was merged stays merged; new ones go on top of it."""
    connection.execute(
        text(
            """
            UPDATE subtasks
            SET status = 'pending', outcome = :outcome, error = :feedback, finished_at = NULL, released_at = NULL,
                not_before = NULL, merged_at = NULL, commit = NULL, feedback = :feedback,
                failures = CASE WHEN :counts THEN failures + 1 ELSE 0 END,
                redeliveries = CASE WHEN :counts THEN redeliveries ELSE 0 END,
                provider_faults = 0
            WHERE job_id = :job_id AND subtask_id = ANY(:ids) AND finished_at IS NOT NULL
            """
        ),
        {
            "job_id": job_id,
            "ids": list(subtask_ids),
            "feedback": feedback,
            "outcome": outcome,
            "counts": counts_as_failure,
        },
    )
    record_event(connection, "subtasks.reopened", job_id, subtask_ids=list(subtask_ids), reason=outcome)
