"""Transitions of a subtask and of its attempts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from orchestrator.outcomes import Outcome, SubtaskOutcome, subtask_status_after
from orchestrator.retry_policy import Retry
from orchestrator.state.events import record_event
from orchestrator.state.one_trip import Statement, in_one_trip
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
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    cost_estimated: bool = False
    cost_unknown: bool = False
    reported_usage: Mapping[str, Any] | None = None
    reported_cost_usd: float | None = None
    agent_started_at: datetime | None = None
    agent_duration_seconds: float | None = None
    retry_after_seconds: float | None = None
    waits_for: str | None = None
    """The provider account that is closed: a retry starts once that lets it."""


def storable(value: Any) -> Any:
    """A value as PostgreSQL takes it in JSON: no NUL, no half of a surrogate pair, no NaN. Programs print such things."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


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


def is_final(connection: Connection, job_id: str, subtask_id: int) -> bool:
    """Whether the subtask has ended. A subtask that does not exist (its job was pruned) counts as ended."""
    open_one = connection.execute(
        text("SELECT 1 FROM subtasks WHERE job_id = :job_id AND subtask_id = :subtask_id AND finished_at IS NULL"),
        {"job_id": job_id, "subtask_id": subtask_id},
    ).first()
    return open_one is None


@dataclass(frozen=True)
class Ended:
    """An attempt's end, with what it means for its subtask: a retry, or None for a final end, and what it counts as."""

    subtask_id: int
    lease_token: str
    end: AttemptEnd
    retry: Retry | None = None
    feedback: str | None = None
    failure: bool = False
    redelivery: bool = False
    provider_fault: bool = False
    has_budget: bool = True
    """Whether its job may have one: its cost is added to what that has spent."""


_END_ATTEMPTS = """
    WITH ended AS (
        SELECT * FROM unnest(CAST(:subtask_ids AS integer[]), CAST(:tokens AS text[]), CAST(:ends AS jsonb[]))
            AS e(subtask_id, lease_token, said)
    ), held AS (
        SELECT a.id, e.subtask_id, e.said
        FROM ended e JOIN attempts a ON a.job_id = :job_id AND a.subtask_id = e.subtask_id
        WHERE a.lease_token = e.lease_token AND a.status = 'running'
        ORDER BY a.id FOR NO KEY UPDATE OF a
    ), attempt AS (
        UPDATE attempts a
        SET status = x.outcome, error = x.error, result = x.result, commit = x.commit, ref = x.ref,
            files_changed = x.files_changed, exit_code = x.exit_code, signal = x.signal,
            check_output = x.check_output, session_id = x.session_id, usage = x.usage, cost_usd = x.cost_usd,
            agent_started_at = x.agent_started_at, agent_duration_seconds = x.agent_duration_seconds,
            model = x.model, cost_estimated = x.cost_estimated, cost_unknown = x.cost_unknown,
            reported_usage = x.reported_usage, reported_cost_usd = x.reported_cost_usd,
            finished_at = clock_timestamp()
        FROM held h CROSS JOIN LATERAL jsonb_to_record(h.said) AS x(
            outcome text, error text, result text, commit text, ref text, files_changed jsonb, exit_code integer,
            signal integer, check_output text, session_id text, usage jsonb, cost_usd double precision,
            agent_started_at timestamptz, agent_duration_seconds double precision, model text, cost_estimated boolean,
            cost_unknown boolean, reported_usage jsonb, reported_cost_usd double precision)
        WHERE a.id = h.id
        RETURNING a.subtask_id, a.number, a.lease_token, h.said
    ), subtask AS (
        UPDATE subtasks s
        SET status = x.status, outcome = x.outcome, error = x.error, result = x.result, commit = x.winner,
            feedback = x.feedback,
            failures = failures + x.failure, redeliveries = redeliveries + x.redelivery,
            provider_faults = CASE WHEN x.provider_fault = 1 THEN provider_faults + 1 ELSE 0 END,
            released_at = CASE WHEN x.status = 'pending' THEN NULL ELSE released_at END,
            not_before = clock_timestamp() + make_interval(secs => x.retry_after_seconds),
            waits_for = CASE WHEN x.status = 'pending' THEN x.waits_for END,
            finished_at = CASE WHEN x.status = 'pending' THEN NULL ELSE clock_timestamp() END
        FROM attempt a CROSS JOIN LATERAL jsonb_to_record(a.said) AS x(
            status text, outcome text, error text, result text, winner text, feedback text, failure integer,
            redelivery integer, provider_fault integer, retry_after_seconds double precision, waits_for text)
        WHERE s.job_id = :job_id AND s.subtask_id = a.subtask_id AND (s.status = 'in_progress') IS TRUE
        RETURNING s.subtask_id, s.group_number, a.number, a.lease_token, a.said
    ), answered AS (
        DELETE FROM outbox o USING attempt a
        WHERE o.job_id = :job_id AND o.subtask_id = a.subtask_id AND a.said->>'status' <> 'pending'
    ), done_with AS (
        DELETE FROM checkpoints c USING attempt a
        WHERE c.job_id = :job_id AND c.subtask_id = a.subtask_id AND a.said->>'status' <> 'pending'
    ){paid}, event AS (
        INSERT INTO events (job_id, group_number, subtask_id, attempt, name, data)
        SELECT :job_id, group_number, subtask_id, number, 'attempt.finished',
               jsonb_build_object('outcome', said->'outcome', 'error', said->'error', 'subtask_status', said->'status',
                                  'retry_after_seconds', said->'retry_after_seconds')
        FROM subtask
        RETURNING pg_notify('orchestrator_events', job_id)
    )
    SELECT lease_token, {budget_is_spent} AS budget_is_spent FROM subtask
"""
_WITHOUT_BUDGET = text(_END_ATTEMPTS.format(paid="", budget_is_spent="false"))
_WITHIN_BUDGET = text(
    _END_ATTEMPTS.format(
        paid="""
    , paid AS (
        UPDATE jobs j
        SET spent_usd = j.spent_usd + cost.usd, dearest_attempt_usd = greatest(j.dearest_attempt_usd, cost.dearest)
        FROM (SELECT sum(CAST(said->>'cost_usd' AS numeric)) AS usd, max(CAST(said->>'cost_usd' AS numeric)) AS dearest
              FROM attempt WHERE said->>'cost_usd' IS NOT NULL) cost
        WHERE j.id = :job_id AND j.max_cost_usd IS NOT NULL AND cost.usd IS NOT NULL
        RETURNING j.spent_usd >= CAST(j.max_cost_usd AS numeric) AS budget_is_spent
    )""",
        budget_is_spent="coalesce((SELECT budget_is_spent FROM paid), false)",
    )
)


def end_statement(job_id: str, ended: Sequence[Ended]) -> Statement:
    """The attempts' outcomes, and in_progress → pending (with a retry) or final: one statement, which answers with the
    `lease_token` of each that landed; of the others the lease is not ours any more. Where the job has a budget their cost
    is added to what it has spent; `budget_is_spent` then says whether that is all.

    The job's row is to be locked before it. A retry gives the place back: `release` is to follow in the same transaction.
    """
    statement = _WITHIN_BUDGET if any(one.has_budget for one in ended) else _WITHOUT_BUDGET
    return statement, {
        "job_id": job_id,
        "subtask_ids": [one.subtask_id for one in ended],
        "tokens": [one.lease_token for one in ended],
        "ends": [json.dumps(_told(_said(one)), default=datetime.isoformat) for one in ended],
    }


def _said(ended: Ended) -> dict[str, Any]:
    end, retry = ended.end, ended.retry
    return {
        **{name: storable(value) for name, value in vars(end).items()},
        "files_changed": [storable(name) for name in end.files_changed],
        "usage": _storable_usage(end.usage),
        "reported_usage": None if end.reported_usage is None else _storable_usage(end.reported_usage),
        "status": "pending" if retry else subtask_status_after(end.outcome),
        "winner": end.commit if end.outcome is Outcome.COMPLETED else None,
        "feedback": storable(ended.feedback),
        "failure": int(ended.failure),
        "redelivery": int(ended.redelivery),
        "provider_fault": int(ended.provider_fault),
        "retry_after_seconds": retry.after_seconds if retry else None,
    }


def _told(said: dict[str, Any]) -> dict[str, Any]:
    """Without what is unknown: most of a plain end is, and a key that is not there reads the same."""
    return {name: value for name, value in said.items() if value is not None}


def _storable_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {storable(name): storable(value) for name, value in usage.items()}


def end_attempt(connection: Connection, job_id: str, ended: Ended) -> bool:
    """`end_statement` for one attempt. False: the lease is not ours any more."""
    return connection.execute(*end_statement(job_id, [ended])).first() is not None


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
            "feedback": feedback,
            "outcome": outcome,
            "counts": counts_as_failure,
        },
    )
    record_event(connection, "subtasks.reopened", job_id, subtask_ids=list(subtask_ids), reason=outcome)
