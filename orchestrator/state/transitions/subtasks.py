"""Transitions of a subtask while no agent is at work on it: `claims` and `ends` hold those of an attempt."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from orchestrator.outcomes import Outcome, SubtaskOutcome
from orchestrator.state.events import record_event
from orchestrator.state.storable import storable


def is_final(connection: Connection, job_id: str, subtask_id: int) -> bool:
    """Whether the subtask has ended. A subtask that does not exist (its job was pruned) counts as ended."""
    open_one = connection.execute(
        text("SELECT 1 FROM subtasks WHERE job_id = :job_id AND subtask_id = :subtask_id AND finished_at IS NULL"),
        {"job_id": job_id, "subtask_id": subtask_id},
    ).first()
    return open_one is None


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
                    waits_for = NULL, finished_at = clock_timestamp()
                WHERE job_id = :job_id AND status = 'pending'
                  AND (CAST(:subtask_ids AS integer[]) IS NULL OR subtask_id = ANY(:subtask_ids))
                RETURNING subtask_id
            ), dead AS (
                DELETE FROM outbox WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM ended)
            ), done_with AS (
                DELETE FROM checkpoints WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM ended)
            )
            SELECT subtask_id FROM ended ORDER BY subtask_id
            """
        ),
        {
            "job_id": job_id,
            "status": status,
            "outcome": SubtaskOutcome.SKIPPED if status == "skipped" else Outcome.CANCELLED,
            "error": storable(error),
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
        {"job_id": job_id, "subtask_id": subtask_id, "outcome": outcome, "error": storable(error)},
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
                not_before = NULL, waits_for = NULL, merged_at = NULL, commit = NULL, feedback = :feedback,
                failures = CASE WHEN :counts THEN failures + 1 ELSE 0 END,
                redeliveries = CASE WHEN :counts THEN redeliveries ELSE 0 END,
                provider_faults = 0
            WHERE job_id = :job_id AND subtask_id = ANY(:ids) AND finished_at IS NOT NULL
            """
        ),
        {
            "job_id": job_id,
            "ids": list(subtask_ids),
            "feedback": storable(feedback),
            "outcome": outcome,
            "counts": counts_as_failure,
        },
    )
    record_event(connection, "subtasks.reopened", job_id, subtask_ids=list(subtask_ids), reason=outcome)
