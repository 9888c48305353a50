"""What the database says of a group that is to be merged: read once, in the transaction that claims the merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.dispatch.group_record import AttemptFigures
from orchestrator.merge.branches import AttemptToMerge
from orchestrator.state.transitions.groups import MergeClaim


@dataclass(frozen=True)
class GroupWork:
    """`failures_left` says how often each subtask may still fail; `to_merge` is in subtask order."""

    repo: str | None
    branch: str | None
    base_commit: str | None
    head: str | None
    on_failure: str | Mapping[str, int]
    statuses: Mapping[int, str]
    failures_left: Mapping[int, int]
    to_merge: tuple[AttemptToMerge, ...]
    merged_before: frozenset[int]
    """Subtasks of this group whose change an earlier group run has merged."""
    figures: tuple[AttemptFigures, ...]


def read_group_work(connection: Connection, claim: MergeClaim) -> GroupWork:
    """Three statements, whatever the size of the group."""
    key = {"job_id": claim.job_id, "number": claim.group_number}
    job = connection.execute(
        text(
            "SELECT repo, branch, base_commit, head_commit, plan->'on_failure' AS on_failure,"
            " coalesce((plan->>'retry_failed_agents')::boolean, true) AS retry_enabled FROM jobs WHERE id = :job_id"
        ),
        {"job_id": claim.job_id},
    ).one()
    rows = connection.execute(_SUBTASKS, key).all()
    return GroupWork(
        repo=job.repo,
        branch=job.branch,
        base_commit=job.base_commit,
        head=job.head_commit,
        on_failure=job.on_failure,
        statuses={row.subtask_id: row.status for row in rows},
        failures_left={row.subtask_id: _failures_left(row) if job.retry_enabled else 0 for row in rows},
        to_merge=tuple(
            AttemptToMerge(row.subtask_id, row.title, row.commit, row.ref, row.finished_at)
            for row in rows
            if row.status == "completed" and row.merged_at is None and row.commit is not None
        ),
        merged_before=frozenset(row.subtask_id for row in rows if row.merged_at is not None),
        figures=tuple(AttemptFigures(*row) for row in connection.execute(_FIGURES, {"run": claim.group_run_id})),
    )


def _failures_left(row: Any) -> int:
    return int(row.max_retries) - int(row.failures)


_SUBTASKS = text(
    """
    SELECT s.subtask_id, s.title, s.status, s.commit, s.merged_at, s.failures, s.spec->'max_retries' AS max_retries,
           winner.ref, winner.finished_at
    FROM subtasks s
    LEFT JOIN LATERAL (
        SELECT ref, finished_at FROM attempts a
        WHERE a.job_id = s.job_id AND a.subtask_id = s.subtask_id AND a.status = 'completed'
        ORDER BY a.number DESC LIMIT 1
    ) winner ON true
    WHERE s.job_id = :job_id AND s.group_number = :number
    ORDER BY s.subtask_id
    """
)

_FIGURES = text(
    """
    SELECT id, subtask_id, status, started_at, finished_at, agent_duration_seconds,
           (SELECT sum(value::bigint) FROM jsonb_each_text(usage) WHERE value ~ '^[0-9]+$') AS tokens
    FROM attempts WHERE group_run_id = :run AND finished_at IS NOT NULL ORDER BY subtask_id, number
    """
)
