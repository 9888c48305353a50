"""Transitions of a job, and the window of places that its subtasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.state.events import record_event
from orchestrator.state.one_trip import Statement
from orchestrator.state.outbox import Message, settle_control, settle_job
from orchestrator.state.storable import storable
from orchestrator.task_names import START_JOB


@dataclass(frozen=True)
class Job:
    """A job's row as the transaction that locked it sees it."""

    id: str
    title: str
    status: str
    repo: str | None
    base_commit: str | None
    branch: str | None
    head_commit: str | None
    parallelization_strategy: str
    reason: str | None
    deadline_at: datetime | None
    cancel_requested_at: datetime | None
    max_cost_usd: float | None
    spent_usd: float
    """By its ended attempts; counted where there is a budget."""
    budget_is_spent: bool

    @property
    def steered_to_its_end(self) -> bool:
        """Somebody cancelled it, or its deadline passed: nothing new begins."""
        return self.cancel_requested_at is not None


_LOCK = text(
    """
    SELECT id, title, status, repo, base_commit, branch, head_commit, parallelization_strategy, reason, deadline_at,
           cancel_requested_at, max_cost_usd, CAST(spent_usd AS double precision) AS spent_usd,
           coalesce(spent_usd >= CAST(max_cost_usd AS numeric), false) AS budget_is_spent
    FROM jobs WHERE id = :job_id FOR NO KEY UPDATE
    """
)


def lock_job(connection: Connection, job_id: str) -> Job | None:
    """Take the job's row: the first statement of each transaction that changes more than one row of it.

    The lock lets foreign keys of other transactions pass (NO KEY): a claim writes an event, which refers to the job, and
    must not wait for those who hold the job and wait for what the claim has locked.
    """
    row = connection.execute(*lock_statement(job_id)).one_or_none()
    return Job(**row._mapping) if row else None


def lock_statement(job_id: str) -> Statement:
    """`lock_job` for a transaction that is sent in one trip; its row holds the job's columns."""
    return _LOCK, {"job_id": job_id}


def start_job(connection: Connection, job_id: str) -> bool:
    """pending → running. False: it runs already, or was cancelled before it began."""
    landed = connection.execute(
        text(
            "UPDATE jobs SET status = 'running', started_at = clock_timestamp(), head_commit = base_commit"
            " WHERE id = :job_id AND status = 'pending' AND cancel_requested_at IS NULL RETURNING id"
        ),
        {"job_id": job_id},
    ).first()
    settle_control(connection, job_id, START_JOB)
    if landed:
        record_event(connection, "job.started", job_id)
    return landed is not None


def finish_job(connection: Connection, job_id: str, status: str, reason: str | None, error: str | None) -> bool:
    """pending or running → final, once no subtask is open. What is still owed for it is forgotten."""
    landed = connection.execute(
        text(
            """
            UPDATE jobs SET status = :status, reason = :reason, error = :error, finished_at = clock_timestamp()
            WHERE id = :job_id AND status IN ('pending', 'running')
              AND NOT EXISTS (SELECT FROM subtasks WHERE job_id = :job_id AND finished_at IS NULL)
            RETURNING id
            """
        ),
        {"job_id": job_id, "status": status, "reason": reason, "error": storable(error)},
    ).first()
    if landed:
        settle_job(connection, job_id)
        record_event(connection, "job.finished", job_id, status=status, reason=reason, error=error)
    return landed is not None


def request_end(connection: Connection, job_id: str, reason: str) -> bool:
    """Note that the job is to end (`cancelled` or `deadline`), with its row locked. False: it is final, or ends already.

    No status changes here: pending subtasks are ended by `subtasks.end_pending`, running ones by their workers, and the
    job by whoever makes the last of them final.
    """
    landed = connection.execute(
        text(
            "UPDATE jobs SET cancel_requested_at = clock_timestamp(), reason = :reason"
            " WHERE id = :job_id AND finished_at IS NULL AND cancel_requested_at IS NULL RETURNING id"
        ),
        {"job_id": job_id, "reason": reason},
    ).first()
    if landed:
        record_event(connection, "job.end_requested", job_id, reason=reason)
    return landed is not None


_PAUSE = text(
    """
    WITH paused AS (
        UPDATE jobs SET paused_at = clock_timestamp()
        WHERE id = :job_id AND finished_at IS NULL AND cancel_requested_at IS NULL AND paused_at IS NULL
        RETURNING id
    ), taken_back AS (
        UPDATE subtasks SET released_at = NULL
        FROM paused WHERE job_id = paused.id AND status = 'pending' AND released_at IS NOT NULL
        RETURNING subtask_id
    ), quiet AS (
        UPDATE outbox SET due_at = NULL
        WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM taken_back)
    )
    SELECT id FROM paused
    """
)


def pause_job(connection: Connection, job_id: str) -> bool:
    """Let nothing new of the job start, with its row locked; no status changes. False: paused already, ending or final.

    What was released and not yet claimed loses its place: a claim asks for one, so from the commit on none gets through,
    however late its message comes, and nothing is published meanwhile. `release` refuses until `resume_job`.
    """
    landed = connection.execute(_PAUSE, {"job_id": job_id}).first()
    if landed:
        record_event(connection, "job.paused", job_id)
    return landed is not None


def resume_job(connection: Connection, job_id: str) -> bool:
    """Undo a pause, with the job's row locked; `release` is to follow in the same transaction. False: not paused."""
    landed = connection.execute(
        text(
            "UPDATE jobs SET paused_at = NULL"
            " WHERE id = :job_id AND finished_at IS NULL AND paused_at IS NOT NULL RETURNING id"
        ),
        {"job_id": job_id},
    ).first()
    if landed:
        record_event(connection, "job.resumed", job_id)
    return landed is not None


def reopen_job(connection: Connection, job_id: str, *, max_cost_usd: float | None = None) -> bool:
    """failed or cancelled → running, for a retry of its failed subtasks. Its time and its deadline start anew: what passed
    between its end and the retry was no work. A pause is over.

    `max_cost_usd` takes the place of its budget, and covers what it has spent so far too.
    """
    landed = connection.execute(
        text(
            """
            UPDATE jobs SET status = 'running', reason = NULL, error = NULL, finished_at = NULL,
                            cancel_requested_at = NULL, paused_at = NULL,
                            deadline_at = clock_timestamp() + make_interval(secs => (plan->>'deadline')::double precision),
                            head_commit = coalesce(head_commit, base_commit),
                            started_at = clock_timestamp(),
                            max_cost_usd = coalesce(:max_cost_usd, max_cost_usd)
            WHERE id = :job_id AND status IN ('failed', 'cancelled') RETURNING id
            """
        ),
        {"job_id": job_id, "max_cost_usd": max_cost_usd},
    ).first()
    if landed:
        record_event(connection, "job.reopened", job_id)
    return landed is not None


def advance_head(connection: Connection, job_id: str, head: str) -> None:
    """Record the integration branch's commit; it has been pushed."""
    connection.execute(text("UPDATE jobs SET head_commit = :head WHERE id = :job_id"), {"job_id": job_id, "head": head})


_WAITING = """
        SELECT subtask_id, estimated_duration_seconds, max_cost_usd FROM subtasks
        WHERE job_id = :job_id AND status = 'pending' AND released_at IS NULL
          AND (not_before IS NULL OR not_before <= clock_timestamp())
          AND waits_for IS NOT DISTINCT FROM CAST(:account AS text)
          AND group_number = (SELECT min(number) FROM groups WHERE job_id = :job_id AND status = 'running')
        ORDER BY estimated_duration_seconds DESC, subtask_id
        LIMIT coalesce((SELECT greatest(least(free, CAST(:most AS integer)), 0) FROM places), 0)
"""
_RELEASED = """
    released AS (
        UPDATE subtasks SET released_at = clock_timestamp(), not_before = NULL
        WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM chosen)
        RETURNING subtask_id, estimated_duration_seconds
    ), due AS (
        UPDATE outbox SET due_at = clock_timestamp(), publish_count = 0
        FROM released WHERE outbox.job_id = :job_id AND outbox.subtask_id = released.subtask_id
        RETURNING outbox.id, message, released.subtask_id, estimated_duration_seconds
    )
    SELECT id, message FROM due ORDER BY estimated_duration_seconds DESC, subtask_id
"""
# Both statements are put together of the constants above, and of nothing that anybody wrote.
_RELEASE = text(
    f"""
    WITH places AS (
        SELECT max_parallel_agents
               - (SELECT count(*) FROM subtasks WHERE job_id = :job_id AND released_at IS NOT NULL AND finished_at IS NULL)
               AS free
        FROM jobs
        WHERE id = :job_id AND status = 'running' AND cancel_requested_at IS NULL AND paused_at IS NULL
    ), chosen AS ({_WAITING}),
    {_RELEASED}
    """  # noqa: S608
)
_RELEASE_WITHIN_BUDGET = text(
    f"""
    WITH places AS (
        SELECT max_parallel_agents - in_flight.number AS free, CAST(max_cost_usd AS numeric) - spent_usd - in_flight.usd AS unreserved,
               dearest_attempt_usd
        FROM jobs j CROSS JOIN LATERAL (
            SELECT count(*) AS number, coalesce(sum(coalesce(CAST(s.max_cost_usd AS numeric), j.dearest_attempt_usd)), 0) AS usd
            FROM subtasks s WHERE s.job_id = j.id AND s.released_at IS NOT NULL AND s.finished_at IS NULL
        ) in_flight
        WHERE id = :job_id AND status = 'running' AND cancel_requested_at IS NULL AND paused_at IS NULL
    ), waiting AS ({_WAITING}),
    reserving AS (
        SELECT subtask_id, estimated_duration_seconds, coalesce(CAST(max_cost_usd AS numeric), dearest_attempt_usd) AS usd
        FROM waiting CROSS JOIN places
    ), chosen AS (
        SELECT subtask_id FROM (
            SELECT subtask_id, sum(usd) OVER (ORDER BY estimated_duration_seconds DESC, subtask_id) - usd AS before
            FROM reserving
        ) in_order
        WHERE (SELECT unreserved IS NULL OR before < unreserved FROM places)
    ),
    {_RELEASED}
    """  # noqa: S608
)


def release(
    connection: Connection, job_id: str, *, account: str | None = None, most: int | None = None
) -> list[Message]:
    """Fill the job's free places: at most `max_parallel_agents` subtasks are released and not final.

    Those that wait for a provider's account are left out; with `account` they are the ones that are released, at most
    `most` of them.

    Called, with the job's row locked by an earlier statement, in each transaction that frees a place; the lock makes
    the count exact. The messages are to be published after the commit, longest estimate first. Nothing
    is released while the job is paused, ending or final.

    With a budget a place is given out only while what was spent and what is reserved for those in flight is less than it:
    each reserves its agent's own limit, else what the dearest attempt of the job has cost so far (docs/decisions/0010).
    """
    rows = connection.execute(*release_statement(job_id, account=account, most=most))
    return released([dict(row._mapping) for row in rows])


def release_statement(
    job_id: str, *, account: str | None = None, most: int | None = None, has_budget: bool = True
) -> Statement:
    """`release` for a transaction that is sent in one trip; `released` reads its rows. Without a budget the statement need
    not look for one."""
    parameters = {"job_id": job_id, "account": account, "most": most}
    return _RELEASE_WITHIN_BUDGET if has_budget else _RELEASE, parameters


def released(rows: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages to publish after the commit, in their order."""
    return [Message(row["id"], row["message"]) for row in rows]
