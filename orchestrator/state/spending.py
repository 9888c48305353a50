"""What the attempts of a job have used, as their rows say; `orchestrator.ledger` adds it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, text

from orchestrator.ledger import Before, Figures, Spending, spending


@dataclass(frozen=True)
class _Attempt:
    subtask_id: int
    usage: Mapping[str, Any] | None
    cost_usd: float | None
    cost_estimated: bool
    cost_unknown: bool


_OF_JOB: Final = text(
    """
    SELECT subtask_id, usage, cost_usd, cost_estimated, cost_unknown FROM attempts
    WHERE job_id = :job_id AND (usage <> '{}' OR cost_usd IS NOT NULL OR cost_unknown)
    ORDER BY subtask_id
    """
)


def spending_by_subtask(connection: Connection, job_id: str) -> dict[int, Spending]:
    """Of each subtask of the job whose attempts have told anything, or should have."""
    rows = [_Attempt(*row) for row in connection.execute(_OF_JOB, {"job_id": job_id})]
    return {subtask_id: spending(attempts) for subtask_id, attempts in groupby(rows, attrgetter("subtask_id"))}


_REPORTED_LAST: Final = text(
    """
    WITH earlier AS (
        SELECT * FROM attempts
        WHERE job_id = :job_id AND subtask_id = :subtask_id AND session_id = :session_id AND finished_at IS NOT NULL
    ), told_tokens AS (
        SELECT reported_usage FROM earlier WHERE reported_usage IS NOT NULL ORDER BY number DESC LIMIT 1
    ), told_cost AS (
        SELECT number, reported_cost_usd FROM earlier WHERE reported_cost_usd IS NOT NULL ORDER BY number DESC LIMIT 1
    )
    SELECT (SELECT reported_usage FROM told_tokens) AS usage,
           (SELECT reported_cost_usd FROM told_cost) AS cost_usd,
           (SELECT coalesce(sum(cost_usd), 0) FROM earlier
            WHERE cost_estimated AND number > coalesce((SELECT number FROM told_cost), 0)) AS estimated_usd
    """
)


def reported_before(connection: Connection, job_id: str, subtask_id: int, session_id: str) -> Before:
    """What the earlier attempts of a subtask had reported last of a session that another is to go on with.

    Tokens and cost may come from two attempts: a program that was killed may have told the one and not the other. An
    attempt that reported nothing is left out, so that what it used is part of what the next one reports.
    """
    row = connection.execute(
        _REPORTED_LAST, {"job_id": job_id, "subtask_id": subtask_id, "session_id": session_id}
    ).one()
    return Before(Figures(row.usage, row.cost_usd), row.estimated_usd)
