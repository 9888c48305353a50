"""Leases: who may work, until when, by the database's clock.

A claim gives one, `renew` keeps all of a worker's, `expired` finds those whose worker fell silent. Every write that
speaks for an attempt names its token, so a worker that lost its lease can change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

OUTAGE_LEASES: Final = 1.5
"""For so many lease times after an outage of the database no lease expires. Workers hear within a third of one that it
is back, and for a whole one from then on their agents may run."""


@dataclass(frozen=True)
class Renewal:
    """What a worker hears of one lease that it still holds. `ending` is the job's reason to end, if it is to end."""

    token: str
    ending: str | None


def renew(connection: Connection, tokens: Sequence[str], lease_seconds: float) -> list[Renewal]:
    """Keep all of these leases, in one statement. A token that is missing from the answer is lost.

    The rows are locked in the order in which attempts that end together lock theirs: neither can be part of a deadlock.
    """
    rows = connection.execute(
        text(
            """
            WITH held AS (
                SELECT id FROM attempts WHERE lease_token = ANY(:tokens) AND status = 'running'
                ORDER BY id FOR NO KEY UPDATE
            )
            UPDATE attempts a SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
            FROM held, jobs j
            WHERE a.id = held.id AND a.status = 'running' AND j.id = a.job_id
            RETURNING a.lease_token, CASE WHEN j.cancel_requested_at IS NOT NULL THEN j.reason END AS ending
            """
        ),
        {"tokens": list(tokens), "lease_seconds": lease_seconds},
    )
    return [Renewal(row.lease_token, row.ending) for row in rows]


@dataclass(frozen=True)
class ExpiredLease:
    """An attempt whose worker has not renewed in time, with what the retry policy needs to know of its subtask."""

    lease_token: str
    job_id: str
    subtask_id: int
    worker: str
    redeliveries: int


def expired(connection: Connection, lease_seconds: float) -> list[ExpiredLease]:
    """Attempts to take away. None while the server has just been started: workers may have been unable to renew
    through its restart, and paid work is not thrown away for an outage."""
    rows = connection.execute(
        text(
            """
            SELECT a.lease_token, a.job_id, a.subtask_id, a.worker, s.redeliveries
            FROM attempts a JOIN subtasks s ON s.job_id = a.job_id AND s.subtask_id = a.subtask_id
            WHERE a.status = 'running' AND a.lease_expires_at < clock_timestamp()
              AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => :up_seconds)
            ORDER BY a.lease_expires_at
            """
        ),
        {"up_seconds": OUTAGE_LEASES * lease_seconds},
    )
    return [ExpiredLease(*row) for row in rows]


def still_expired(connection: Connection, lease_token: str) -> bool:
    """Whether the lease is expired now, with the attempt's row locked: no renewal can come between this and its end."""
    row = connection.execute(
        text(
            "SELECT 1 FROM attempts WHERE lease_token = :token AND status = 'running'"
            " AND lease_expires_at < clock_timestamp() FOR UPDATE"
        ),
        {"token": lease_token},
    ).first()
    return row is not None
