"""Transitions of a job whose budget is spent: what has not started never starts, and its end says why.

Nothing here stops an agent. Those at work end normally, their work is merged, and the job fails after that merge.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.ledger import BUDGET_EXCEEDED, Spending, cost_in_words, usd_in_words
from orchestrator.outcomes import Outcome, SubtaskOutcome, subtask_status_after
from orchestrator.state.events import record_event
from orchestrator.state.transitions.jobs import Job


def refuse_what_is_left(connection: Connection, job: Job) -> bool:
    """pending → skipped, or failed where an attempt had failed and its retry does not start. The job's row is locked, and
    its budget is spent. True if anything was refused, now or before: the job can't complete any more."""
    words = spent_in_words(connection, job)
    rows = connection.execute(
        _END_PENDING,
        {
            "job_id": job.id,
            "words": words,
            "statuses": json.dumps({str(outcome): subtask_status_after(outcome) for outcome in Outcome}),
            "skipped": SubtaskOutcome.SKIPPED,
        },
    ).all()
    for name, ids in (
        ("subtasks.skipped", [row.subtask_id for row in rows if row.status == "skipped"]),
        ("subtasks.failed", [row.subtask_id for row in rows if row.status != "skipped"]),
    ):
        if ids:
            record_event(connection, name, job.id, subtask_ids=ids, error=words)
    if rows and job.reason != BUDGET_EXCEEDED:
        note_budget_exceeded(connection, job)
    return bool(rows) or job.reason == BUDGET_EXCEEDED


def note_budget_exceeded(connection: Connection, job: Job) -> None:
    """Say why the job will end. No status changes here: it ends with the merge of the group that is under way."""
    words = spent_in_words(connection, job)
    connection.execute(
        text("UPDATE jobs SET reason = :reason, error = :error WHERE id = :job_id AND finished_at IS NULL"),
        {"job_id": job.id, "reason": BUDGET_EXCEEDED, "error": words},
    )
    record_event(
        connection, "job.budget_exceeded", job.id, spent_usd=job.spent_usd, max_cost_usd=job.max_cost_usd, error=words
    )


def spent_in_words(connection: Connection, job: Job) -> str:
    """`$1.20 spent of the budget of $1.00`, with `~` and `at least` where they are true."""
    row = connection.execute(
        text(
            "SELECT coalesce(bool_or(cost_estimated), false) AS estimated,"
            " coalesce(bool_or(cost_unknown), false) AS unknown FROM attempts WHERE job_id = :job_id"
        ),
        {"job_id": job.id},
    ).one()
    spent = Spending(cost_usd=job.spent_usd, estimated=row.estimated, cost_incomplete=row.unknown)
    return f"{cost_in_words(spent)} spent of the budget of {usd_in_words(job.max_cost_usd or 0.0)}"


def count_what_was_spent(connection: Connection, job_id: str) -> None:
    """Add up the attempts of a final job that is about to get a budget: without one nobody has counted."""
    connection.execute(
        text(
            """
            UPDATE jobs SET spent_usd = paid.usd, dearest_attempt_usd = paid.dearest
            FROM (SELECT coalesce(sum(CAST(cost_usd AS numeric)), 0) AS usd, coalesce(max(CAST(cost_usd AS numeric)), 0) AS dearest
                  FROM attempts WHERE job_id = :job_id) paid
            WHERE id = :job_id
            """
        ),
        {"job_id": job_id},
    )


def group_to_merge(connection: Connection, job_id: str) -> int | None:
    """The running group of which nothing is under way any more. Its chord will not call: skipped headers never return."""
    number: Any = connection.execute(
        text(
            """
            SELECT min(g.number) FROM groups g WHERE g.job_id = :job_id AND g.status = 'running'
            AND NOT EXISTS (SELECT FROM subtasks s WHERE s.job_id = :job_id AND s.group_number = g.number
                                                     AND s.finished_at IS NULL)
            """
        ),
        {"job_id": job_id},
    ).scalar_one()
    return None if number is None else int(number)


_END_PENDING = text(
    """
    WITH ended AS (
        UPDATE subtasks
        SET status = CASE WHEN outcome IS NULL THEN 'skipped'
                          ELSE coalesce(CAST(:statuses AS jsonb)->>outcome, 'failed') END,
            outcome = coalesce(outcome, CAST(:skipped AS text)),
            error = concat_ws('; ', CASE WHEN outcome IS NOT NULL THEN error END,
                              CASE WHEN outcome IS NULL THEN 'not started' ELSE 'no retry was started' END
                              || ': ' || CAST(:words AS text)),
            released_at = NULL, not_before = NULL, waits_for = NULL, finished_at = clock_timestamp()
        WHERE job_id = :job_id AND status = 'pending'
        RETURNING subtask_id, status
    ), dead AS (
        DELETE FROM outbox WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM ended)
    ), done_with AS (
        DELETE FROM checkpoints WHERE job_id = :job_id AND subtask_id IN (SELECT subtask_id FROM ended)
    )
    SELECT subtask_id, status FROM ended ORDER BY subtask_id
    """
)
