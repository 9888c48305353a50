"""What the fleet has learned of its providers' limits: the rows behind `orchestrator.rate_limit`, and who waits for what.

Stored in PostgreSQL, so a worker that starts, or a broker that has lost everything, forgets none of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from orchestrator.provider_account import Account
from orchestrator.rate_limit import FORGOTTEN_AFTER_SECONDS, Limit, answered, throttled
from orchestrator.retry_policy import RetryPolicy
from orchestrator.state.events import record_event
from orchestrator.state.one_trip import Statement
from orchestrator.state.views import AccountView

_LOCK: Final = text("SELECT 1 FROM provider_limits WHERE account = :account FOR NO KEY UPDATE")


def lock_limit(account: str) -> Statement:
    """Before a claim for the account, in the same trip: what counts its places after this sees every claim before it."""
    return _LOCK, {"account": account}


def salt_of_fleet(connection: Connection) -> str:
    """The salt of the fleet's hashes of keys, made by whoever asks first."""
    connection.execute(
        text("INSERT INTO provider_salt (salt) VALUES (:salt) ON CONFLICT DO NOTHING"), {"salt": secrets.token_hex(16)}
    )
    return str(connection.execute(text("SELECT salt FROM provider_salt")).scalar_one())


@dataclass(frozen=True)
class Throttled:
    """An attempt that its provider turned away."""

    account: str
    job_id: str
    subtask_id: int
    attempt_id: int
    retry_after_seconds: float | None


_SEEN: Final = text(
    """
    SELECT clock_timestamp() AS now, a.started_at, a.number, a.group_number,
           (SELECT count(*) FROM attempts r WHERE r.account = :account AND r.status = 'running') AS running
    FROM (SELECT a.started_at, a.number, s.group_number
          FROM attempts a JOIN subtasks s ON s.job_id = a.job_id AND s.subtask_id = a.subtask_id
          WHERE a.id = :attempt_id) a
    """
)
_LIMIT: Final = text(
    "SELECT closed_until, allowed, most, throttled_at, strikes FROM provider_limits WHERE account = :account FOR NO KEY UPDATE"
)
_STORE: Final = text(
    """
    INSERT INTO provider_limits (account, closed_until, allowed, most, throttled_at, strikes)
    VALUES (:account, :closed_until, :allowed, :most, :throttled_at, :strikes)
    ON CONFLICT (account) DO UPDATE
    SET closed_until = excluded.closed_until, allowed = excluded.allowed, most = excluded.most,
        throttled_at = excluded.throttled_at, strikes = excluded.strikes
    """
)


def note_throttle(connection: Connection, told: Throttled, policy: RetryPolicy, jitter: float) -> float:
    """Close the account for every worker. Returns for how many seconds it is closed now.

    Of a burst of agents the first to come has the account's lock, and the others see what it has stored: it is halved
    once. An attempt that is gone (its job was pruned) changes nothing.
    """
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:account, 0))")
    connection.execute(lock, {"account": told.account})
    before = _locked_limit(connection, told.account)
    seen = connection.execute(_SEEN, {"account": told.account, "attempt_id": told.attempt_id}).one_or_none()
    if seen is None:
        return 0.0
    limit = throttled(
        before,
        now=seen.now,
        running=seen.running,
        started_at=seen.started_at,
        retry_after_seconds=told.retry_after_seconds,
        policy=policy,
        jitter=jitter,
    )
    connection.execute(_STORE, {"account": told.account, **vars(limit)})
    closed_seconds: float = max((limit.closed_until - seen.now).total_seconds(), 0.0)
    record_event(
        connection,
        "provider.throttled",
        told.job_id,
        group_number=seen.group_number,
        subtask_id=told.subtask_id,
        attempt=seen.number,
        account=told.account,
        closed_seconds=closed_seconds,
        allowed=limit.allowed,
    )
    return closed_seconds


def note_answers(connection: Connection, account: str, attempt_id: int) -> None:
    """An agent of the account has got all its answers: one more may be at work, where there is a limit at all."""
    before = _locked_limit(connection, account)
    if before is None:
        return
    seen = connection.execute(_SEEN, {"account": account, "attempt_id": attempt_id}).one_or_none()
    if seen is None:
        return
    after = answered(before, now=seen.now, started_at=seen.started_at)
    if after is None:
        connection.execute(text("DELETE FROM provider_limits WHERE account = :account"), {"account": account})
    elif after != before:
        connection.execute(_STORE, {"account": account, **vars(after)})


def forget_old_limits(connection: Connection) -> None:
    """Delete what was learned so long ago that it says nothing of today."""
    connection.execute(
        text(
            "DELETE FROM provider_limits WHERE greatest(closed_until, throttled_at)"
            " < clock_timestamp() - make_interval(secs => :age)"
        ),
        {"age": FORGOTTEN_AFTER_SECONDS},
    )


def seconds_closed(connection: Connection, account: str) -> float:
    """For how long nothing of the account may start; 0 when it is open."""
    left = connection.execute(
        text(
            "SELECT extract(epoch FROM closed_until - clock_timestamp()) FROM provider_limits WHERE account = :account"
        ),
        {"account": account},
    ).scalar_one_or_none()
    return max(float(left or 0), 0.0)


_ACCOUNTS: Final = text(
    """
    WITH working AS (
        SELECT account, count(*) AS running FROM attempts WHERE status = 'running' AND account IS NOT NULL GROUP BY account
    ), waiting AS (
        SELECT waits_for AS account, count(*) FILTER (WHERE released_at IS NULL) AS waiting,
               count(*) FILTER (WHERE released_at IS NOT NULL) AS on_their_way
        FROM subtasks WHERE status = 'pending' AND waits_for IS NOT NULL GROUP BY waits_for
    )
    SELECT account, closed_until, allowed, most, throttled_at, strikes, clock_timestamp() AS now,
           coalesce(running, 0) AS running, coalesce(waiting, 0) AS waiting, coalesce(on_their_way, 0) AS on_their_way
    FROM provider_limits FULL JOIN working USING (account) FULL JOIN waiting USING (account)
    ORDER BY account
    """
)


def accounts(connection: Connection) -> list[AccountView]:
    """Every account that there is something to say of, in the order of their names."""
    return [
        AccountView(
            Account.of_name(row.account),
            _limit(dict(row._mapping)),
            row.now,
            row.running,
            row.waiting,
            row.on_their_way,
        )
        for row in connection.execute(_ACCOUNTS)
    ]


def jobs_waiting(connection: Connection, account: str) -> Sequence[str]:
    """The jobs with subtasks that wait for the account; in no order, so that none is always the last."""
    rows = connection.execute(
        text(
            """
            SELECT job_id FROM (SELECT DISTINCT s.job_id FROM subtasks s JOIN jobs j ON j.id = s.job_id
                                WHERE s.status = 'pending' AND s.waits_for = :account AND s.released_at IS NULL
                                  AND (s.not_before IS NULL OR s.not_before <= clock_timestamp())
                                  AND j.status = 'running' AND j.cancel_requested_at IS NULL AND j.paused_at IS NULL) w
            ORDER BY random()
            """
        ),
        {"account": account},
    )
    return list(rows.scalars())


def _locked_limit(connection: Connection, account: str) -> Limit | None:
    row = connection.execute(_LIMIT, {"account": account}).one_or_none()
    return _limit(dict(row._mapping)) if row else None


def _limit(row: Mapping[str, Any]) -> Limit | None:
    if row["allowed"] is None:
        return None
    return Limit(**{name: row[name] for name in Limit.__dataclass_fields__})
