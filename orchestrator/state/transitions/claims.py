"""A claim: a pending subtask goes to work, with a new attempt under a lease."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from orchestrator.state.one_trip import in_one_trip
from orchestrator.state.provider_limits import lock_limit


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
    has_budget: bool
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
    account: str | None = None
    """Whose limits the attempt counts against: `orchestrator.provider_account`."""

    def seconds_to_deadline(self) -> float | None:
        """What is left until the job's deadline, negative after it; None without one."""
        return None if self.deadline_monotonic is None else self.deadline_monotonic - time.monotonic()

    @property
    def deadline_passed(self) -> bool:
        left = self.seconds_to_deadline()
        return left is not None and left <= 0


@dataclass(frozen=True)
class Wanted:
    """A message's wish for an attempt. `chord_id` is that of the message, None where it belongs to none.

    `account` is that of the agent in this worker, "" for an agent without a provider. None where nobody has asked yet:
    then only agents that are known to have none are claimed.
    """

    subtask_id: int
    chord_id: str | None
    lease_token: str
    account: str | None = ""


# `(… ) IS TRUE` keeps a condition out of the choice of an index. A job that was just submitted is not in PostgreSQL's
# statistics: it would take `ix_subtasks_group` for as good as the key, and read hundreds of its entries a subtask.
_CLAIM = text(
    """
    WITH wanted AS (
        SELECT * FROM unnest(CAST(:subtask_ids AS integer[]), CAST(:chord_ids AS text[]), CAST(:tokens AS text[]),
                             CAST(:accounts AS text[]))
            AS w(subtask_id, chord_id, lease_token, account)
    ), free AS (
        SELECT w.subtask_id, w.lease_token, nullif(w.account, '') AS account, run.id AS group_run_id, j.title AS job_title, j.goal, j.repo, g.base_commit,
               extract(epoch FROM j.deadline_at - clock_timestamp()) AS seconds_to_deadline,
               coalesce((j.plan->>'retry_failed_agents')::boolean, true) AS retry_enabled, j.max_cost_usd IS NOT NULL AS has_budget
        FROM wanted w
        JOIN subtasks s ON s.job_id = :job_id AND s.subtask_id = w.subtask_id
        JOIN jobs j ON j.id = :job_id
        JOIN groups g ON g.job_id = :job_id AND (g.number = s.group_number) IS TRUE
        CROSS JOIN LATERAL (
            SELECT id, chord_id FROM group_runs r WHERE r.job_id = :job_id AND r.group_number = g.number
            ORDER BY r.id DESC LIMIT 1
        ) run
        WHERE (s.status = 'pending') IS TRUE AND s.released_at IS NOT NULL
          AND (s.not_before IS NULL OR s.not_before <= clock_timestamp())
          AND j.status = 'running' AND j.cancel_requested_at IS NULL AND g.status = 'running'
          AND (j.max_cost_usd IS NULL OR j.spent_usd < CAST(j.max_cost_usd AS numeric))
          AND (w.chord_id IS NULL OR w.chord_id = run.chord_id)
          AND CASE WHEN w.account IS NULL
                   THEN s.agent = ANY(:plain_agents) AND s.spec->'agent'->'config'->>'provider' IS NULL
                   ELSE w.account = '' OR NOT EXISTS (
                       SELECT FROM provider_limits l WHERE l.account = w.account
                         AND (l.closed_until > clock_timestamp()
                              OR l.allowed <= (SELECT count(*) FROM attempts a
                                               WHERE a.account = w.account AND a.status = 'running'))) END
        FOR NO KEY UPDATE OF s SKIP LOCKED
    ), claimed AS (
        UPDATE subtasks s
        SET status = 'in_progress', attempts = s.attempts + 1, started_at = coalesce(s.started_at, clock_timestamp()),
            waits_for = NULL
        FROM free f
        WHERE s.job_id = :job_id AND s.subtask_id = f.subtask_id AND (s.status = 'pending') IS TRUE
        RETURNING s.job_id, s.subtask_id, s.title, s.agent, s.group_number, s.attempts AS number, s.spec, s.feedback,
                  s.failures, s.redeliveries, s.provider_faults, f.lease_token, f.group_run_id, f.job_title, f.goal, f.repo,
                  f.base_commit, f.seconds_to_deadline, f.retry_enabled, f.has_budget, f.account
    ), attempt AS (
        INSERT INTO attempts (job_id, subtask_id, number, group_run_id, worker, agent, base_commit, started_at,
                              lease_token, lease_expires_at, account)
        SELECT job_id, subtask_id, number, group_run_id, :worker, agent, base_commit, clock_timestamp(),
               lease_token, clock_timestamp() + make_interval(secs => :lease_seconds), account
        FROM claimed
        RETURNING id, subtask_id
    ), quiet AS (
        UPDATE outbox SET due_at = NULL
        FROM claimed c WHERE outbox.job_id = :job_id AND outbox.subtask_id = c.subtask_id
    ), event AS (
        INSERT INTO events (job_id, group_number, subtask_id, attempt, name, data)
        SELECT job_id, group_number, subtask_id, number, 'attempt.started', jsonb_build_object('worker', CAST(:worker AS text))
        FROM claimed
        RETURNING pg_notify('orchestrator_events', job_id)
    )
    SELECT c.job_id, c.subtask_id, c.title, c.agent, c.group_number, c.number, c.spec, c.feedback, c.failures,
           c.redeliveries, c.provider_faults, c.lease_token, c.job_title, c.goal, c.repo, c.base_commit,
           c.seconds_to_deadline, c.retry_enabled, c.has_budget, c.account, attempt.id AS attempt_id
    FROM claimed c JOIN attempt USING (subtask_id)
    """
)


def claim(
    engine: Engine,
    job_id: str,
    wanted: Sequence[Wanted],
    *,
    worker: str,
    lease_seconds: float,
    plain_agents: Collection[str] = (),
) -> list[Claim | None]:
    """pending → in_progress, each with a new running attempt under a lease: one statement, one round trip.

    None stands where the subtask is not released, in its back-off, at work elsewhere or final, when the job is ending,
    and for a message of an earlier group run: it would count in a chord that nobody waits for. Copies, late messages and
    messages out of order all end here. A row that is locked is being claimed, paused or cancelled by another: nobody
    waits for it, so claims of many rows can't be part of a deadlock. Should the other give up, the message comes again.

    `plain_agents` are those that are known to have no provider. A claim for an account goes alone: its limit is locked
    first, so that no two claims take its last place.
    """
    accounts = [one.account for one in wanted if one.account]
    assert len(wanted) == 1 or not accounts, "the places of an account are counted for one claim at a time"
    parameters = {
        "job_id": job_id,
        "subtask_ids": [one.subtask_id for one in wanted],
        "chord_ids": [one.chord_id for one in wanted],
        "tokens": [one.lease_token for one in wanted],
        "accounts": [one.account for one in wanted],
        "plain_agents": list(plain_agents),
        "worker": worker,
        "lease_seconds": lease_seconds,
    }
    rows = in_one_trip(engine, *map(lock_limit, accounts), (_CLAIM, parameters))[-1]
    claims = {row["lease_token"]: _claim(row) for row in rows}
    return [claims.get(one.lease_token) for one in wanted]


def _claim(row: dict[str, Any]) -> Claim:
    left = row.pop("seconds_to_deadline")
    return Claim(**row, deadline_monotonic=None if left is None else time.monotonic() + float(left))
