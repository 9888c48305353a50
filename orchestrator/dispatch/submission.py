"""From a valid plan to a stored job, in one transaction."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from celery import Celery
from sqlalchemy import Connection, insert, select, text

from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import IllegalRequest
from orchestrator.fault_points import fault_point
from orchestrator.ledger import own_limit_usd
from orchestrator.plan.model import PlannedGroup, ResolvedSubtask, ValidatedPlan
from orchestrator.state import tables
from orchestrator.state.engine import translated
from orchestrator.state.events import record_event
from orchestrator.state.outbox import owe
from orchestrator.submitted_repository import RepositoryAtSubmission, resolve_repository
from orchestrator.task_names import CONTROL_QUEUE, START_JOB


@dataclass(frozen=True)
class Submitted:
    """`created` is False where the idempotency key named a job that exists; `notes` are for the user to read."""

    job_id: str
    created: bool
    notes: tuple[str, ...] = ()


def submit(
    fleet: Fleet,
    plan: ValidatedPlan,
    *,
    idempotency_key: str | None = None,
    repository: RepositoryAtSubmission | None = None,
) -> Submitted:
    """Store the job and wake a dispatcher. `repository`: what the caller has just found out of the plan's, if anything.

    With a key that was used before, the same plan gives the job that it gave then; another plan is refused. Raises
    `RepositoryError`, `IllegalRequest`, `DatabaseUnavailable`; nothing is stored then. A broker that is away does not
    lose the job: its first message waits in the outbox.
    """
    with translated():
        if idempotency_key is not None:
            with fleet.engine.connect() as connection:
                known = _known_job(connection, idempotency_key, plan)
            if known:
                return known
        job_id = secrets.token_hex(6)
        repository = repository or _look_at_repository(plan, job_id)
        with fleet.engine.begin() as connection:
            if idempotency_key is not None:
                # Two submissions with one key at once: the second waits here, then finds the first one's job.
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": idempotency_key})
                known = _known_job(connection, idempotency_key, plan)
                if known:
                    return known
            _store(connection, job_id, plan, repository, idempotency_key)
            message = owe(connection, job_id, _start_message(fleet.app, job_id))
            fault_point("submission_before_commit")
        fault_point("submission_after_commit_before_publish")
        fleet.publish([message])
    return Submitted(job_id, True, repository.notes if repository else ())


def branch_of(job_id: str) -> str:
    """The integration branch of a job."""
    return f"orchestrator/{job_id}"


def _look_at_repository(plan: ValidatedPlan, job_id: str) -> RepositoryAtSubmission | None:
    if plan.plan.repo is None:
        return None
    return resolve_repository(plan.plan.repo, plan.plan.base, job_branch=branch_of(job_id))


def _known_job(connection: Connection, key: str, plan: ValidatedPlan) -> Submitted | None:
    jobs = tables.jobs
    row = connection.execute(select(jobs.c.id, jobs.c.plan_digest).where(jobs.c.idempotency_key == key)).one_or_none()
    if row is None:
        return None
    if row.plan_digest != plan.digest:
        raise IllegalRequest(
            f"The idempotency key {key!r} belongs to job {row.id}, which has another plan.",
            context={"idempotency_key": key, "job_id": row.id},
            recovery="Use another key, or submit the plan of that job.",
        )
    return Submitted(row.id, False)


def _store(
    connection: Connection,
    job_id: str,
    plan: ValidatedPlan,
    repository: RepositoryAtSubmission | None,
    idempotency_key: str | None,
) -> None:
    words = plan.plan
    connection.execute(
        insert(tables.jobs).values(
            id=job_id,
            title=words.title,
            goal=words.goal or "",
            plan=words.model_dump(mode="json"),
            plan_digest=plan.digest,
            idempotency_key=idempotency_key,
            repo=repository.repo if repository else None,
            base=repository.base if repository else None,
            base_commit=repository.base_commit if repository else None,
            branch=branch_of(job_id) if repository else None,
            max_parallel_agents=words.max_parallel_agents,
            parallelization_strategy=words.parallelization_strategy,
            deadline_at=_deadline(words.deadline_seconds),
            max_cost_usd=words.max_cost_usd,
        )
    )
    connection.execute(
        insert(tables.groups),
        [{"job_id": job_id, "number": group.number, "check_command": group.check} for group in plan.groups],
    )
    connection.execute(
        insert(tables.subtasks),
        [_subtask_row(job_id, group, subtask) for group in plan.groups for subtask in group.subtasks],
    )
    record_event(connection, "job.submitted", job_id, title=words.title, base=repository.base if repository else None)


def _start_message(app: Celery, job_id: str) -> dict[str, Any]:
    return dict(app.signature(START_JOB, args=(job_id,), queue=CONTROL_QUEUE, argsrepr=f"{job_id[:6]} · start"))


def _subtask_row(job_id: str, group: PlannedGroup, subtask: ResolvedSubtask) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "subtask_id": subtask.subtask_id,
        "group_number": group.number,
        "title": subtask.title,
        "agent": subtask.agent.name,
        "spec": subtask.model_dump(mode="json"),
        "estimated_duration_seconds": subtask.estimated_duration_minutes * 60,
        "max_cost_usd": own_limit_usd(subtask.agent.config),
    }


def _deadline(seconds: float | None) -> Any:
    return (
        None
        if seconds is None
        else text("clock_timestamp() + make_interval(secs => :deadline_seconds)").bindparams(deadline_seconds=seconds)
    )
