"""The end of an attempt, and what it makes of its subtask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.outcomes import Outcome, subtask_status_after
from orchestrator.retry_policy import Retry
from orchestrator.state.one_trip import Statement
from orchestrator.state.storable import storable


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


# `(… ) IS TRUE`: as in a claim.
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
        **storable(vars(end)),
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


def end_attempt(connection: Connection, job_id: str, ended: Ended) -> bool:
    """`end_statement` for one attempt. False: the lease is not ours any more."""
    return connection.execute(*end_statement(job_id, [ended])).first() is not None
