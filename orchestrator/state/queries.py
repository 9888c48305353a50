"""Read-only views for people and programs: each is a fixed number of statements, whatever the size of the history.

Nothing here writes. A view of one job is read in one snapshot (`job_view`), so its parts never contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Connection,
    Engine,
    Integer,
    Row,
    Text,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, distinct_on

from orchestrator.errors import UnknownJob
from orchestrator.ledger import NOTHING_TOLD, Spending
from orchestrator.plan.model import ResolvedSubtask
from orchestrator.state import provider_limits
from orchestrator.state.spending import spending_by_subtask
from orchestrator.state.tables import attempts, events, group_runs, groups, jobs, log_chunks, subtasks
from orchestrator.state.views import (
    AttemptHead,
    AttemptView,
    EventView,
    GroupRunView,
    GroupView,
    JobLine,
    JobView,
    LatestChunk,
    SubtaskView,
)

MATCHES_SHOWN: Final = 5
HEXADECIMAL: Final = frozenset("0123456789abcdef")


def find_job(connection: Connection, prefix: str) -> str:
    """The id of the one job whose id begins with `prefix`. Raises `UnknownJob` where none or several do."""
    sought = prefix.strip().lower()
    if not sought or not HEXADECIMAL.issuperset(sought):
        raise UnknownJob(
            f"{prefix!r} is no job's id: an id is made of the digits 0-9 and a-f.",
            context={"job": prefix},
            recovery="`orchestrator list` shows the jobs.",
        )
    # A range, not LIKE: the primary key's index serves it in every collation ("g" sorts after every digit used here).
    matching = connection.execute(
        select(jobs.c.id, jobs.c.title)
        .where(jobs.c.id >= sought, jobs.c.id < sought + "g")
        .order_by(jobs.c.created_at.desc(), jobs.c.id)
        .limit(MATCHES_SHOWN + 1)
    ).all()
    exact = [row for row in matching if row.id == sought]
    if exact or len(matching) == 1:
        return str((exact or matching)[0].id)
    if not matching:
        raise UnknownJob(
            f"No job's id begins with {prefix!r}.",
            context={"job": prefix},
            recovery="`orchestrator list` shows the jobs.",
        )
    shown = ", ".join(f"{row.id} ({row.title})" for row in matching[:MATCHES_SHOWN])
    more = " and more" if len(matching) > MATCHES_SHOWN else ""
    raise UnknownJob(
        f"{prefix!r} matches several jobs: {shown}{more}.",
        context={"job": prefix, "matches": [row.id for row in matching[:MATCHES_SHOWN]]},
        recovery="Write more of the id.",
    )


def jobs_beginning(connection: Connection, beginning: str, *, limit: int) -> list[tuple[str, str, str]]:
    """(id, status, title) of the newest jobs whose id begins so."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.status, jobs.c.title)
        .where(jobs.c.id.startswith(beginning, autoescape=True))
        .order_by(jobs.c.created_at.desc(), jobs.c.id)
        .limit(limit)
    )
    return [(row.id, row.status, row.title) for row in rows]


def newest_job(connection: Connection) -> str:
    """The id of the job that was submitted last. Raises `UnknownJob` where there is none."""
    newest = connection.scalar(select(jobs.c.id).order_by(jobs.c.created_at.desc(), jobs.c.id).limit(1))
    if newest is None:
        raise UnknownJob("There is no job yet.", recovery="`orchestrator run PLAN` makes one.")
    return str(newest)


_NEWEST_JOBS: Final = text(
    """
    SELECT job.*,
           CAST(extract(epoch FROM coalesce(finished_at, now()) - started_at) AS double precision) AS duration_seconds,
           coalesce((SELECT jsonb_object_agg(status, n)
                     FROM (SELECT s.status, count(*) AS n FROM subtasks s WHERE s.job_id = job.id GROUP BY s.status) AS c),
                    '{}') AS subtasks
    FROM (SELECT id, title, status, reason, paused_at, cancel_requested_at, created_at, started_at, finished_at
          FROM jobs
          WHERE CAST(:status AS text) IS NULL OR status = :status
          ORDER BY created_at DESC, id
          LIMIT :limit) AS job
    ORDER BY created_at DESC, id
    """
)


def list_jobs(connection: Connection, *, limit: int, status: str | None = None) -> list[JobLine]:
    """The jobs, newest first."""
    rows = connection.execute(_NEWEST_JOBS, {"limit": limit, "status": status})
    return [JobLine(**row._mapping) for row in rows]


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment, so that several statements never contradict each other, and can't write."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
        yield connection


def job_view(engine: Engine, job_id: str) -> JobView:
    """The whole of one job, read in one snapshot. Raises `UnknownJob` where it is gone."""
    with snapshot(engine) as connection:
        return read_job(connection, job_id)


def read_job(connection: Connection, job_id: str) -> JobView:
    """`job_view` for who reads more of the job in the same snapshot."""
    job = connection.execute(select(jobs, func.now().label("now")).where(jobs.c.id == job_id)).one_or_none()
    if job is None:
        raise UnknownJob(f"There is no job {job_id} any more.", context={"job": job_id})
    group_rows = connection.execute(select(groups).where(groups.c.job_id == job_id).order_by(groups.c.number)).all()
    run_rows = connection.execute(
        select(*_RUN_COLUMNS).where(group_runs.c.job_id == job_id).order_by(group_runs.c.number)
    ).all()
    subtask_rows = connection.execute(_subtasks_with_newest_attempt(), {"job": job_id}).all()
    spent = spending_by_subtask(connection, job_id)

    runs: dict[int, list[GroupRunView]] = {row.number: [] for row in group_rows}
    for row in run_rows:
        runs[row.group_number].append(_group_run(row))
    of_group: dict[int, list[SubtaskView]] = {row.number: [] for row in group_rows}
    for row in subtask_rows:
        of_group[row.group_number].append(_subtask(row, job.now, spent.get(row.subtask_id, NOTHING_TOLD)))
    waited_for = {row.waits_for for row in subtask_rows} - {None}
    accounts = provider_limits.accounts(connection) if waited_for else []
    return JobView(
        **{name: getattr(job, name) for name in JobView.__dataclass_fields__ if name not in ("groups", "accounts")},
        accounts={view.account.name: view for view in accounts if view.account.name in waited_for},
        groups=tuple(
            GroupView(
                number=row.number,
                status=row.status,
                error=row.error,
                started_at=row.started_at,
                finished_at=row.finished_at,
                runs=tuple(runs[row.number]),
                subtasks=tuple(of_group[row.number]),
            )
            for row in group_rows
        ),
    )


def events_after(connection: Connection, job_id: str, after_id: int, *, limit: int = 5000) -> list[EventView]:
    """The job's events with a greater id, in the order of their ids.

    Ids are given out before their transactions commit, so a smaller id may appear later: who follows must look back.
    """
    rows = connection.execute(
        select(events).where(events.c.job_id == job_id, events.c.id > after_id).order_by(events.c.id).limit(limit)
    )
    return [EventView(**{name: getattr(row, name) for name in EventView.__dataclass_fields__}) for row in rows]


def newest_event(connection: Connection, job_id: str) -> int:
    """The id of the job's newest event; 0 where there is none."""
    return connection.scalar(select(func.coalesce(func.max(events.c.id), 0)).where(events.c.job_id == job_id)) or 0


def attempt_heads(connection: Connection, job_id: str, subtask_id: int | None = None) -> dict[int, AttemptHead]:
    """The attempts of a job, or of one subtask, by their ids, in the order of subtasks and attempt numbers."""
    columns = [attempts.c[name] for name in AttemptHead.__dataclass_fields__]
    wanted = select(*columns).where(attempts.c.job_id == job_id).order_by(attempts.c.subtask_id, attempts.c.number)
    if subtask_id is not None:
        wanted = wanted.where(attempts.c.subtask_id == subtask_id)
    return {row.id: AttemptHead(*row) for row in connection.execute(wanted)}


def require_attempt(engine: Engine, job_id: str, subtask_id: int | None, number: int) -> None:
    """Raise `UnknownJob` where the subtask, or no subtask of the job, has had an attempt of that number."""
    with engine.connect() as connection:
        is_open(connection, job_id, subtask_id)
        had = {attempt.number for attempt in attempt_heads(connection, job_id, subtask_id).values()}
    if number not in had:
        of_subtask = "" if subtask_id is None else f" of subtask {subtask_id}"
        raise UnknownJob(
            f"Job {job_id} has no attempt {number}{of_subtask}.",
            context={"job": job_id, "subtask_id": subtask_id, "attempt": number},
            recovery=f"The newest one is {max(had)}." if had else "No agent has started yet.",
        )


def is_open(connection: Connection, job_id: str, subtask_id: int | None = None) -> bool:
    """Whether the job, or one subtask of it, is not final. Raises `UnknownJob` where there is no such subtask."""
    if subtask_id is None:
        return connection.scalar(select(jobs.c.finished_at.is_(None)).where(jobs.c.id == job_id)) or False
    found = connection.scalar(
        select(subtasks.c.finished_at.is_(None)).where(subtasks.c.job_id == job_id, subtasks.c.subtask_id == subtask_id)
    )
    if found is None:
        raise UnknownJob(
            f"Job {job_id} has no subtask {subtask_id}.",
            context={"job": job_id, "subtask_id": subtask_id},
            recovery=f"`orchestrator status {job_id}` shows its subtasks.",
        )
    return bool(found)


def unfinished_subtasks(connection: Connection, job_id: str) -> list[ResolvedSubtask]:
    """Those that did not complete, as they were planned, in the order of their ids: what `retry` runs again."""
    specs = connection.scalars(
        select(subtasks.c.spec)
        .where(subtasks.c.job_id == job_id, subtasks.c.status != "completed")
        .order_by(subtasks.c.subtask_id)
    )
    return [ResolvedSubtask.model_validate(spec) for spec in specs]


def latest_chunks(connection: Connection, job_id: str, known: Mapping[int, int]) -> list[LatestChunk]:
    """The newest log chunk of each running attempt, where it is newer than the sequence number that `known` has."""
    newest = (
        select(log_chunks.c.sequence, log_chunks.c.content)
        .where(log_chunks.c.attempt_id == attempts.c.id)
        .order_by(log_chunks.c.sequence.desc())
        .limit(1)
        .lateral("newest")
    )
    seen = cast(bindparam("known", type_=Text), JSONB)[cast(attempts.c.id, Text)].astext
    rows = connection.execute(
        select(attempts.c.id, attempts.c.subtask_id, newest.c.sequence, newest.c.content)
        .select_from(attempts.join(newest, true()))
        .where(
            attempts.c.job_id == job_id,
            attempts.c.status == "running",
            newest.c.sequence > func.coalesce(cast(seen, Integer), 0),
        ),
        {"known": json.dumps(known)},
    )
    return [LatestChunk(row.id, row.subtask_id, row.sequence, bytes(row.content)) for row in rows]


def _subtasks_with_newest_attempt() -> Any:
    newest = (
        select(attempts)
        .where(attempts.c.job_id == bindparam("job"))
        .ext(distinct_on(attempts.c.subtask_id))
        .order_by(attempts.c.subtask_id, attempts.c.number.desc())
        .subquery("newest")
    )
    return (
        select(
            *(column for column in subtasks.c if column.name not in ("spec", "result", "feedback", "job_id")),
            func.coalesce(subtasks.c.spec["requires"], literal([], JSONB)).label("requires"),
            func.coalesce(subtasks.c.spec["permissions"].astext, "edit").label("permissions"),
            *(newest.c[name].label(f"attempt_{name}") for name in _ATTEMPT_COLUMNS),
        )
        .select_from(subtasks.outerjoin(newest, newest.c.subtask_id == subtasks.c.subtask_id))
        .where(subtasks.c.job_id == bindparam("job"))
        .order_by(subtasks.c.group_number, subtasks.c.subtask_id)
    )


_ATTEMPT_COLUMNS: Final = (
    "id",
    "number",
    "status",
    "resumed_from",
    "worker",
    "started_at",
    "finished_at",
    "agent_duration_seconds",
    "files_changed",
    "exit_code",
    "error",
)


def _subtask(row: Row[Any], now: datetime, spent: Spending) -> SubtaskView:
    made = ("requires", "attempt", "spent")
    plain = {name: getattr(row, name) for name in SubtaskView.__dataclass_fields__ if name not in made}
    return SubtaskView(**plain, requires=tuple(row.requires or ()), attempt=_attempt(row, now), spent=spent)


def _attempt(row: Row[Any], now: datetime) -> AttemptView | None:
    if row.attempt_id is None:
        return None
    values = {name: getattr(row, f"attempt_{name}") for name in _ATTEMPT_COLUMNS}
    values["files_changed"] = tuple(values["files_changed"] or ())
    # A worker's row may be a moment younger than the snapshot's clock.
    lasted = max(((row.attempt_finished_at or now) - row.attempt_started_at).total_seconds(), 0.0)
    return AttemptView(**values, duration_seconds=lasted)


_RUN_COLUMNS: Final = (
    *(
        column
        for column in group_runs.c
        if column.name == "group_number" or column.name in GroupRunView.__dataclass_fields__
    ),
    group_runs.c.conflict_details.label("conflicts"),
    # Without the check's output, which may be long.
    cast(group_runs.c.execution_metadata["check"]["passed"].astext, Boolean).label("check_passed"),
)


def _group_run(row: Row[Any]) -> GroupRunView:
    return GroupRunView(**{name: getattr(row, name) for name in GroupRunView.__dataclass_fields__})
