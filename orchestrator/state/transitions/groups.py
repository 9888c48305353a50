"""Transitions of a group and the records of its passages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.state.events import record_event
from orchestrator.state.one_trip import Statement
from orchestrator.state.storable import storable


@dataclass(frozen=True)
class MergeClaim:
    """The right to merge one group run, fenced by `token`."""

    token: str
    job_id: str
    group_number: int
    group_run_id: int
    check_command: str | None
    woken_by: str
    """callback or reconciler: how often the net was needed shows in the group runs."""


@dataclass(frozen=True)
class GroupRunRecord:
    """What the merge writes down of a group run; the fields are those of the original coordinator's attempt record.

    Durations are in seconds. `speedup_factor` = sum of the completed agents' durations / the group run's wall time.
    """

    success: bool
    failure_reason: str | None
    failed_agent_count: int
    conflict_detected: bool
    conflict_details: list[dict[str, Any]] | None
    agent_ids: list[int]
    sequential_estimate_seconds: float
    max_concurrent_agents: int
    total_token_usage: int | None
    head_commit: str | None
    execution_metadata: dict[str, Any]


def start_group(
    connection: Connection,
    job_id: str,
    number: int,
    *,
    base_commit: str | None,
    chord_id: str,
    subtask_ids: Sequence[int],
    strategy: str,
) -> None:
    """pending (or merging, for what was sent back) → running, with a new group run."""
    connection.execute(
        _START_GROUP,
        {
            "job_id": job_id,
            "number": number,
            "chord_id": chord_id,
            "ids": json.dumps(list(subtask_ids)),
            "count": len(subtask_ids),
            "strategy": strategy,
            "base": base_commit,
        },
    )


_START_GROUP = text(
    """
    WITH moment AS MATERIALIZED (
        SELECT clock_timestamp() AS now  -- of both: parts of a statement run in no order, and a run lies in its group's time
    ), started AS (
        UPDATE groups SET status = 'running', base_commit = :base,
                          started_at = coalesce(started_at, (SELECT now FROM moment))
        WHERE job_id = :job_id AND number = :number AND status IN ('pending', 'running')
    ), run AS (
        INSERT INTO group_runs (job_id, group_number, number, chord_id, subtask_ids, num_agents,
                                parallelization_strategy, base_commit, started_at)
        SELECT :job_id, :number, coalesce(max(number), 0) + 1, :chord_id, CAST(:ids AS jsonb), :count,
               :strategy, :base, (SELECT now FROM moment)
        FROM group_runs WHERE job_id = :job_id AND group_number = :number
    )
    INSERT INTO events (job_id, group_number, name, data)
    VALUES (:job_id, :number, 'group.started', jsonb_build_object('subtask_ids', CAST(:ids AS jsonb)))
    RETURNING pg_notify('orchestrator_events', job_id)
    """
)


_CLAIM_MERGE = text(
    """
    WITH claimed AS (
        UPDATE groups g
        SET status = 'merging', merge_token = :token, woken_by = :woken_by,
            merge_lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
        FROM jobs j
        WHERE g.job_id = :job_id AND g.number = :number AND j.id = g.job_id
          AND j.status = 'running' AND j.cancel_requested_at IS NULL
          AND (g.status = 'running' OR (g.status = 'merging' AND g.merge_lease_expires_at < clock_timestamp()))
          AND NOT EXISTS (SELECT FROM subtasks s WHERE s.job_id = g.job_id AND s.group_number = g.number AND s.finished_at IS NULL)
        RETURNING g.merge_token AS token, g.job_id, g.number AS group_number, g.check_command, g.woken_by,
                  (SELECT max(id) FROM group_runs r WHERE r.job_id = g.job_id AND r.group_number = g.number) AS group_run_id
    ), event AS (
        INSERT INTO events (job_id, group_number, name, data)
        SELECT job_id, group_number, 'group.merging', jsonb_build_object('woken_by', woken_by) FROM claimed
        RETURNING pg_notify('orchestrator_events', job_id)
    )
    SELECT * FROM claimed
    """
)


def claim_merge_statement(job_id: str, number: int, *, token: str, lease_seconds: float, woken_by: str) -> Statement:
    """running → merging, once every subtask of the group is final; the job's row is locked by an earlier statement. Its row
    holds the fields of a `MergeClaim`. No row: too early, too late, or somebody merges."""
    return _CLAIM_MERGE, {
        "job_id": job_id,
        "number": number,
        "token": token,
        "lease_seconds": lease_seconds,
        "woken_by": woken_by,
    }


def renew_merge(connection: Connection, token: str, lease_seconds: float) -> tuple[bool, bool]:
    """Keep the merge lease: (whether it is still ours, whether the job is to end)."""
    row = connection.execute(
        text(
            """
            UPDATE groups g SET merge_lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
            FROM jobs j WHERE g.merge_token = :token AND j.id = g.job_id
            RETURNING j.cancel_requested_at IS NOT NULL AS ending
            """
        ),
        {"token": token, "lease_seconds": lease_seconds},
    ).one_or_none()
    return (row is not None, row is not None and row.ending)


def give_up_dead_merges(connection: Connection, job_id: str) -> None:
    """merging → running, where the lease has expired, in a job that is to end: its row is locked. Nobody begins such a merge
    again, and whoever comes back late finds the lease gone."""
    numbers = connection.execute(
        text(
            "UPDATE groups SET status = 'running', merge_token = NULL, merge_lease_expires_at = NULL"
            " WHERE job_id = :job_id AND status = 'merging' AND merge_lease_expires_at < clock_timestamp() RETURNING number"
        ),
        {"job_id": job_id},
    )
    for number in numbers.scalars():
        record_event(
            connection,
            "group.merge_put_off",
            job_id,
            group_number=number,
            error="its dispatcher was not heard of any more",
        )


def is_under_way(connection: Connection, job_id: str, states: Sequence[str] = ("running", "merging")) -> bool:
    """Whether a group of the job is in one of these states."""
    row = connection.execute(
        text("SELECT 1 FROM groups WHERE job_id = :job_id AND status = ANY(:states)"),
        {"job_id": job_id, "states": list(states)},
    ).first()
    return row is not None


_LEAVE_MERGING = text(
    """
    UPDATE groups
    SET status = :status, error = :error, merge_token = NULL, merge_lease_expires_at = NULL,
        finished_at = CASE WHEN :final THEN clock_timestamp() END
    WHERE merge_token = :token AND status = 'merging' RETURNING number
    """
)


def finish_group(connection: Connection, claim: MergeClaim, status: str, error: str | None) -> bool:
    """merging → completed or failed. False: the merge lease is somebody else's now."""
    landed = connection.execute(
        _LEAVE_MERGING, {"token": claim.token, "status": status, "error": storable(error), "final": True}
    ).first()
    if landed:
        record_event(
            connection, "group.finished", claim.job_id, group_number=claim.group_number, status=status, error=error
        )
    return landed is not None


def send_back(connection: Connection, claim: MergeClaim, error: str) -> bool:
    """merging → running: the merge re-opens subtasks, and a new group run follows in the same transaction."""
    landed = connection.execute(
        _LEAVE_MERGING, {"token": claim.token, "status": "running", "error": storable(error), "final": False}
    ).first()
    if landed:
        record_event(connection, "group.sent_back", claim.job_id, group_number=claim.group_number, error=error)
    return landed is not None


def put_off(connection: Connection, claim: MergeClaim, error: str, *, patience_seconds: float) -> bool:
    """merging → running: the merge could not be done now, the reconciler calls again. False: the lease is not ours, or
    it is longer than `patience_seconds` ago that this passage's merge was first put off."""
    landed = connection.execute(
        text(
            """
            UPDATE groups SET status = 'running', error = :error, merge_token = NULL, merge_lease_expires_at = NULL
            WHERE merge_token = :token AND status = 'merging'
              AND coalesce((SELECT min(at) FROM events
                            WHERE job_id = :job_id AND group_number = :number AND name = 'group.merge_put_off'
                              AND id > (SELECT max(id) FROM events WHERE job_id = :job_id AND group_number = :number
                                        AND name IN ('group.started', 'group.resumed'))), clock_timestamp())
                  > clock_timestamp() - make_interval(secs => :patience)
            RETURNING number
            """
        ),
        {
            "token": claim.token,
            "error": storable(error),
            "job_id": claim.job_id,
            "number": claim.group_number,
            "patience": patience_seconds,
        },
    ).first()
    if landed:
        record_event(connection, "group.merge_put_off", claim.job_id, group_number=claim.group_number, error=error)
    return landed is not None


def record_group_run(connection: Connection, claim: MergeClaim, record: GroupRunRecord) -> None:
    """Complete the group run's row; its wall time runs from its start to this statement."""
    connection.execute(
        text(
            """
            UPDATE group_runs
            SET success = :success, failure_reason = :failure_reason, failed_agent_count = :failed_agent_count,
                conflict_detected = :conflict_detected, conflict_details = CAST(:conflict_details AS jsonb),
                agent_ids = CAST(:agent_ids AS jsonb), sequential_estimate_seconds = :sequential_estimate_seconds,
                max_concurrent_agents = :max_concurrent_agents, total_token_usage = :total_token_usage,
                head_commit = :head_commit, woken_by = :woken_by,
                execution_metadata = CAST(:execution_metadata AS jsonb), completed_at = clock_timestamp(),
                total_duration_seconds = extract(epoch FROM clock_timestamp() - started_at),
                speedup_factor = :sequential_estimate_seconds
                                 / nullif(extract(epoch FROM clock_timestamp() - started_at), 0)
            WHERE id = :id
            """
        ),
        {
            **storable(asdict(record)),
            "woken_by": claim.woken_by,
            "agent_ids": json.dumps(record.agent_ids),
            "conflict_details": json.dumps(storable(record.conflict_details)),
            "execution_metadata": json.dumps(storable(record.execution_metadata)),
            "id": claim.group_run_id,
        },
    )


def resume_group(connection: Connection, job_id: str, number: int) -> None:
    """pending → running without a new group run: all its subtasks are final, and their work waits for its merge."""
    connection.execute(
        text("UPDATE groups SET status = 'running' WHERE job_id = :job_id AND number = :number AND status = 'pending'"),
        {"job_id": job_id, "number": number},
    )
    record_event(connection, "group.resumed", job_id, group_number=number)


def fail_group(connection: Connection, job_id: str, number: int, error: str) -> None:
    """pending → failed: there is nothing in it that could run."""
    connection.execute(
        text(
            "UPDATE groups SET status = 'failed', error = :error, finished_at = clock_timestamp()"
            " WHERE job_id = :job_id AND number = :number AND status = 'pending'"
        ),
        {"job_id": job_id, "number": number, "error": storable(error)},
    )
    record_event(connection, "group.finished", job_id, group_number=number, status="failed", error=error)


def end_groups(connection: Connection, job_id: str, status: str, error: str) -> None:
    """pending or running → skipped or cancelled, for what is left of a job that ends. A merge under way ends itself."""
    ended = connection.execute(
        text(
            "UPDATE groups SET status = :status, error = :error, finished_at = clock_timestamp()"
            " WHERE job_id = :job_id AND status IN ('pending', 'running') RETURNING number"
        ),
        {"job_id": job_id, "status": status, "error": storable(error)},
    )
    if numbers := sorted(ended.scalars()):
        record_event(connection, f"groups.{status}", job_id, group_numbers=numbers, error=error)


def reopen_groups(connection: Connection, job_id: str, numbers: Sequence[int]) -> None:
    """Final → pending, for a retry of subtasks in these groups."""
    connection.execute(
        text(
            "UPDATE groups SET status = 'pending', error = NULL, finished_at = NULL"
            " WHERE job_id = :job_id AND number = ANY(:numbers) AND finished_at IS NOT NULL"
        ),
        {"job_id": job_id, "numbers": list(numbers)},
    )
    record_event(connection, "groups.reopened", job_id, group_numbers=list(numbers))
