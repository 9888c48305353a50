"""The story of a job on the control queue: start, one group after the other, end.

Each step is one transaction; what it owes is published after its commit. Every function may be called twice, late or
by two dispatchers at once: the guarded transitions let one of them through.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from orchestrator.dispatch.chord import HeaderTask, freeze_chord, merge_message
from orchestrator.dispatch.fleet import Fleet
from orchestrator.fault_points import fault_point
from orchestrator.state.engine import translated
from orchestrator.state.outbox import Message, owe, owe_header
from orchestrator.state.transitions import budget, groups, jobs, subtasks

log = logging.getLogger(__name__)

WORDS_OF_THE_END: Final = {"cancelled": "the job was cancelled", "deadline": "the job's deadline passed"}


def start_job(fleet: Fleet, job_id: str) -> None:
    """pending → running, and the first group with it."""
    with translated(), fleet.engine.begin() as connection:
        if jobs.lock_job(connection, job_id) is None:
            return
        started = jobs.start_job(connection, job_id)
        messages = begin_next_group(fleet, connection, job_id) if started else []
    fleet.publish(messages)


def begin_next_group(fleet: Fleet, connection: Connection, job_id: str) -> list[Message]:
    """Start the lowest pending group, or finish the job when none is left. The job's row is locked.

    A subtask whose dependency did not complete is skipped; a group of which nothing is left to run fails without an
    agent, and the next one is looked at. Returns the messages to publish after the commit.
    """
    job = jobs.lock_job(connection, job_id)
    assert job is not None, "the caller has locked it"
    while (group := _lowest_pending_group(connection, job_id)) is not None:
        _skip(connection, job_id, group.blocked)
        if group.header:
            return _dispatch_group(fleet, connection, job, group.number, group.header)
        if _has_unmerged_work(connection, job_id, group.number):
            # Everything had completed when the job ended; the reconciler finds the group and merges it.
            groups.resume_group(connection, job_id, group.number)
            return []
        groups.fail_group(connection, job_id, group.number, "nothing in it could run")
    finish_job(connection, job_id)
    return []


def begin_group_if_idle(fleet: Fleet, connection: Connection, job_id: str) -> list[Message]:
    """`begin_next_group` for a running job in which no group is under way. Locks the job's row."""
    job = jobs.lock_job(connection, job_id)
    if job is None or job.status != "running" or job.steered_to_its_end or groups.is_under_way(connection, job_id):
        return []
    return begin_next_group(fleet, connection, job_id)


def _dispatch_group(
    fleet: Fleet, connection: Connection, job: jobs.Job, number: int, header: Sequence[HeaderTask]
) -> list[Message]:
    """Freeze the chord, store its messages, mark the group running, release as many as the window allows."""
    chord = freeze_chord(fleet.app, job.id, number, header)
    groups.start_group(
        connection,
        job.id,
        number,
        base_commit=job.head_commit,
        chord_id=chord.chord_id,
        subtask_ids=sorted(chord.messages),
        strategy=job.parallelization_strategy,
    )
    owe_header(connection, job.id, chord.messages)
    fault_point("after_chord_size_before_commit")
    log.info(
        "Executing parallel group %d with %d subtasks",
        number,
        len(header),
        extra={"event": "group.started", "job_id": job.id, "group_number": number},
    )
    return jobs.release(connection, job.id)


def send_back(fleet: Fleet, connection: Connection, job_id: str, number: int) -> list[Message]:
    """Dispatch what a merge has re-opened: a new group run, a chord of the re-opened subtasks alone."""
    job = jobs.lock_job(connection, job_id)  # read again: the merge has moved the head on
    assert job is not None, "the caller has locked it"
    return _dispatch_group(fleet, connection, job, number, _header(connection, job_id, number))


def finish_job(connection: Connection, job_id: str) -> bool:
    """Make a running job final when no group is left: completed when all its groups are, else failed."""
    counts = connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE status <> 'completed') AS bad, count(*) AS total,"
            " (SELECT count(*) FROM subtasks WHERE job_id = :job_id AND status <> 'completed') AS failed_subtasks"
            " FROM groups WHERE job_id = :job_id"
        ),
        {"job_id": job_id},
    ).one()
    if counts.bad == 0:
        within_quorum = "quorum" if counts.failed_subtasks else None
        return jobs.finish_job(connection, job_id, "completed", within_quorum, None)
    reason = "subtasks_failed" if counts.failed_subtasks else "group_check"
    return jobs.finish_job(connection, job_id, "failed", reason, f"{counts.bad} of {counts.total} groups failed")


def stop_job(connection: Connection, job_id: str, reason: str, error: str) -> None:
    """Make a job final after a group that may not be followed by another: what is left is skipped."""
    subtasks.end_pending(connection, job_id, "skipped", f"not started: {error}")
    groups.end_groups(connection, job_id, "skipped", f"not started: {error}")
    jobs.finish_job(connection, job_id, "failed", reason, error)


def request_end(connection: Connection, job_id: str, reason: str) -> bool:
    """Let the job end because it was `cancelled` or its `deadline` passed. The job's row is locked. False: it ends
    already. What has not started never starts; the job is final once nothing of it is under way."""
    if not jobs.request_end(connection, job_id, reason):
        return False
    subtasks.end_pending(connection, job_id, "cancelled", WORDS_OF_THE_END[reason])
    end_job_if_idle(connection, job_id)
    return True


def end_job_if_idle(connection: Connection, job_id: str) -> bool:
    """Make a job final that is to end (cancelled, deadline), once no agent and no merge of it is under way.

    Called, with the job's row locked, by whoever may have been the last to hold it up: the request itself, the worker
    that recorded the last outcome, the merge, the reconciler.
    """
    job = jobs.lock_job(connection, job_id)
    if job is None or job.cancel_requested_at is None:
        return False
    groups.give_up_dead_merges(connection, job_id)
    if groups.is_under_way(connection, job_id, ("merging",)):
        return False
    status = "cancelled" if job.reason == "cancelled" else "failed"
    error = WORDS_OF_THE_END[job.reason or "cancelled"]
    if not jobs.finish_job(connection, job_id, status, job.reason, error):
        return False
    groups.end_groups(connection, job_id, "cancelled", error)
    return True


def stop_spending(fleet: Fleet, connection: Connection, job_id: str) -> list[Message]:
    """Let nothing of a job start any more once its budget is spent. Returns the message to publish after the commit.

    Called, where the job has a budget, by whoever recorded an attempt's end, and by the reconciler. Agents at work end
    normally; whoever finds that none is left wakes the merge, with which the job fails.
    """
    job = jobs.lock_job(connection, job_id)
    if job is None or job.status != "running" or not job.budget_is_spent or job.steered_to_its_end:
        return []
    if not budget.refuse_what_is_left(connection, job):
        return []
    number = budget.group_to_merge(connection, job_id)
    return [] if number is None else [owe(connection, job_id, dict(merge_message(fleet.app, job_id, number)))]


@dataclass(frozen=True)
class _Candidate:
    """A pending group: what of it may run, and whose dependency (by subtask id) has ended without completing."""

    number: int
    header: list[HeaderTask]
    blocked: dict[int, int]


def _lowest_pending_group(connection: Connection, job_id: str) -> _Candidate | None:
    rows = connection.execute(_LOWEST_PENDING_GROUP, {"job_id": job_id}).all()
    if not rows:
        return None
    pending = [row for row in rows if row.subtask_id is not None]
    return _Candidate(
        number=rows[0].number,
        header=[_header_task(row) for row in pending if row.blocked_by is None],
        blocked={row.subtask_id: row.blocked_by for row in pending if row.blocked_by is not None},
    )


_LOWEST_PENDING_GROUP = text(
    """
    SELECT g.number, s.subtask_id, s.title, s.agent, s.spec->'requires' AS requires, blocked.by AS blocked_by
    FROM (SELECT number FROM groups WHERE job_id = :job_id AND status = 'pending' ORDER BY number LIMIT 1) g
    LEFT JOIN subtasks s ON s.job_id = :job_id AND s.group_number = g.number AND s.status = 'pending'
    LEFT JOIN LATERAL (
        SELECT min(d.subtask_id) AS by
        FROM jsonb_array_elements_text(s.spec->'depends_on') AS wanted(id)
        JOIN subtasks d ON d.job_id = :job_id AND d.subtask_id = wanted.id::integer
        WHERE d.finished_at IS NOT NULL AND d.status <> 'completed'
    ) blocked ON true
    ORDER BY s.subtask_id
    """
)


def _header(connection: Connection, job_id: str, number: int) -> list[HeaderTask]:
    rows = connection.execute(
        text(
            "SELECT subtask_id, title, agent, spec->'requires' AS requires FROM subtasks"
            " WHERE job_id = :job_id AND group_number = :number AND status = 'pending' ORDER BY subtask_id"
        ),
        {"job_id": job_id, "number": number},
    )
    return [_header_task(row) for row in rows]


def _header_task(row: Any) -> HeaderTask:
    return HeaderTask(row.subtask_id, row.title, row.agent, row.requires or ())


def _skip(connection: Connection, job_id: str, blocked: Mapping[int, int]) -> None:
    """A subtask whose dependency has ended without completing is not worth an agent."""
    for subtask_id, dependency in blocked.items():
        why = f"it depends on #{dependency}, which did not complete"
        subtasks.end_pending(connection, job_id, "skipped", why, subtask_ids=[subtask_id])


def _has_unmerged_work(connection: Connection, job_id: str, number: int) -> bool:
    row = connection.execute(
        text(
            "SELECT 1 FROM subtasks WHERE job_id = :job_id AND group_number = :number"
            " AND status = 'completed' AND merged_at IS NULL"
        ),
        {"job_id": job_id, "number": number},
    ).first()
    return row is not None
