"""What the database says of a group that is to be merged: read once, in the transaction that claims the merge."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, text

from orchestrator.dispatch.group_record import AttemptFigures
from orchestrator.merge.branches import AttemptToMerge
from orchestrator.state.one_trip import in_one_trip
from orchestrator.state.transitions.groups import MergeClaim, claim_merge_statement
from orchestrator.state.transitions.jobs import lock_statement


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


def claim_group_work(
    engine: Engine, job_id: str, group_number: int, *, lease_seconds: float, woken_by: str
) -> tuple[MergeClaim, GroupWork] | None:
    """Claim the merge and read what there is to merge, in one round trip. None: too early, too late, or somebody merges.
    Raises `DatabaseUnavailable`."""
    key = {"job_id": job_id, "number": group_number}
    _, claimed, jobs, subtasks, figures = in_one_trip(
        engine,
        # A cancellation looks for merges under way and ends the groups that are left: no merge may begin in between.
        lock_statement(job_id),
        claim_merge_statement(
            job_id, group_number, token=secrets.token_hex(16), lease_seconds=lease_seconds, woken_by=woken_by
        ),
        (_JOB, {"job_id": job_id}),
        (_SUBTASKS, key),
        (_FIGURES, key),
    )
    if not claimed:
        return None
    (job,) = jobs
    retry_enabled = job.pop("retry_enabled")
    return MergeClaim(**claimed[0]), GroupWork(
        **job,
        statuses={row["subtask_id"]: row["status"] for row in subtasks},
        failures_left={row["subtask_id"]: row["failures_left"] if retry_enabled else 0 for row in subtasks},
        to_merge=tuple(
            AttemptToMerge(row["subtask_id"], row["title"], row["commit"], row["ref"], row["finished_at"])
            for row in subtasks
            if row["status"] == "completed" and row["merged_at"] is None and row["commit"] is not None
        ),
        merged_before=frozenset(row["subtask_id"] for row in subtasks if row["merged_at"] is not None),
        figures=tuple(AttemptFigures(**row) for row in figures),
    )


_JOB = text(
    """
    SELECT repo, branch, base_commit, head_commit AS head, plan->'on_failure' AS on_failure,
           coalesce((plan->>'retry_failed_agents')::boolean, true) AS retry_enabled
    FROM jobs WHERE id = :job_id
    """
)

_SUBTASKS = text(
    """
    SELECT s.subtask_id, s.title, s.status, s.commit, s.merged_at, (s.spec->'max_retries')::integer - s.failures AS failures_left,
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
           (SELECT CAST(least(sum(CAST(value AS numeric)), 1e14) AS bigint)  -- programs tell any number
            FROM jsonb_each_text(usage) WHERE value ~ '^[0-9]+$') AS tokens
    FROM attempts
    WHERE group_run_id = (SELECT max(id) FROM group_runs WHERE job_id = :job_id AND group_number = :number)
      AND finished_at IS NOT NULL
    ORDER BY subtask_id, number
    """
)
