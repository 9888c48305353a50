"""A subtask whose provider is closed, or has as many agents as it takes, waits without a place and without a message.

`hold` takes its place from it, so that subtasks of other providers start in its stead; the reconciler's
`orchestrator.recovery.admission` lets it go again.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from orchestrator.state.events import record_event

_HOLD: Final = text(
    """
    WITH held AS (
        UPDATE subtasks SET released_at = NULL, waits_for = :account
        WHERE job_id = :job_id AND subtask_id = :subtask_id AND status = 'pending' AND released_at IS NOT NULL
          AND EXISTS (SELECT FROM provider_limits l WHERE l.account = :account
                        AND (l.closed_until > clock_timestamp()
                             OR l.allowed <= (SELECT count(*) FROM attempts a
                                              WHERE a.account = :account AND a.status = 'running')))
        RETURNING subtask_id, group_number, spec->'agent' AS agent, spec->'requires' AS requires
    ), quiet AS (
        UPDATE outbox SET due_at = NULL
        FROM held WHERE outbox.job_id = :job_id AND outbox.subtask_id = held.subtask_id
    ), others AS (
        UPDATE subtasks s SET waits_for = :account
        FROM held h
        WHERE s.job_id = :job_id AND s.group_number = h.group_number AND s.status = 'pending'
          AND s.released_at IS NULL AND s.waits_for IS NULL
          AND s.spec->'agent' = h.agent AND s.spec->'requires' IS NOT DISTINCT FROM h.requires
        RETURNING s.subtask_id, s.group_number
    )
    SELECT subtask_id, group_number FROM held UNION ALL SELECT subtask_id, group_number FROM others
    """
)


def hold(connection: Connection, job_id: str, subtask_id: int, account: str) -> list[int]:
    """A claim was refused for its account: the subtask gives its place back, and with it wait all of its group that hold
    none, have the same agent and need the same workers, for each of them would be refused as well. Returns their ids.

    The job's row is to be locked before it, `release` is to follow in the same transaction. Empty where the account has
    room again, by the same rule as the claim's, or the subtask was cancelled, paused or claimed meanwhile.
    """
    parameters = {"job_id": job_id, "subtask_id": subtask_id, "account": account}
    rows = connection.execute(_HOLD, parameters).all()
    held = sorted(row.subtask_id for row in rows)
    if held:
        group = rows[0].group_number
        record_event(connection, "subtasks.held", job_id, group_number=group, subtask_ids=held, account=account)
    return held
