"""What a user asks of a job that exists: end it, halt it for a while, try its failures again."""

from __future__ import annotations

from sqlalchemy import Connection, text

from orchestrator.dispatch.dispatcher import begin_next_group, request_end
from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import IllegalRequest, UnknownJob
from orchestrator.ledger import usd_in_words
from orchestrator.state.engine import translated
from orchestrator.state.tables import JOB_FINAL
from orchestrator.state.transitions import budget, groups, jobs, subtasks


def cancel_job(fleet: Fleet, job_id: str) -> bool:
    """End a job: what was not started never starts, running agents are told at their worker's next renewal.

    False: it is final already, or ends already. Merged work stays on the integration branch.
    """
    return end_job(fleet, job_id, "cancelled")


def end_job(fleet: Fleet, job_id: str, reason: str) -> bool:
    """Ask for the end of a job, because it was `cancelled` or its `deadline` passed: one transaction."""
    with translated(), fleet.engine.begin() as connection:
        _lock(connection, job_id)
        return request_end(connection, job_id, reason)


def pause_job(fleet: Fleet, job_id: str) -> bool:
    """Start no new agent of the job until `resume_job`; running ones and a merge under way end as always.

    The deadline goes on counting. False: it is paused already. Raises `IllegalRequest` for a job that is final or ends.
    """
    with translated(), fleet.engine.begin() as connection:
        _require_open(_lock(connection, job_id), "paused")
        return jobs.pause_job(connection, job_id)


def resume_job(fleet: Fleet, job_id: str) -> bool:
    """Let a paused job go on at once. False: it is not paused. Raises `IllegalRequest` for a job that is final or ends."""
    with translated(), fleet.engine.begin() as connection:
        _require_open(_lock(connection, job_id), "resumed")
        resumed = jobs.resume_job(connection, job_id)
        messages = jobs.release(connection, job_id) if resumed else []
    fleet.publish(messages)
    return resumed


def retry_job(fleet: Fleet, job_id: str, *, max_cost_usd: float | None = None) -> tuple[int, ...]:
    """Run the failed, timed-out, cancelled and skipped subtasks of a final job again; completed ones never run twice.

    `max_cost_usd` is its budget from now on, of which all that it has spent so far is taken. Returns their ids, in order;
    none where all had completed. Raises `IllegalRequest` for a job that is not final, and for one whose budget is spent.
    """
    with translated(), fleet.engine.begin() as connection:
        job = _lock(connection, job_id)
        if job.status not in JOB_FINAL:
            raise IllegalRequest(
                f"Job {job_id} is {job.status}: only a job that has ended can be retried.",
                context={"job_id": job_id, "status": job.status},
                recovery="Wait for its end, or cancel it first.",
            )
        unfinished = connection.execute(
            text(
                "SELECT subtask_id, group_number FROM subtasks"
                " WHERE job_id = :job_id AND status <> 'completed' ORDER BY subtask_id"
            ),
            {"job_id": job_id},
        ).all()
        unmerged = connection.execute(
            text("SELECT number FROM groups WHERE job_id = :job_id AND status <> 'completed'"), {"job_id": job_id}
        ).scalars()
        again = sorted({row.group_number for row in unfinished} | set(unmerged))
        if not again:
            return ()
        _require_affordable(connection, job, max_cost_usd)
        if not jobs.reopen_job(connection, job_id, max_cost_usd=max_cost_usd):
            return ()
        ids = [row.subtask_id for row in unfinished]
        subtasks.reopen(connection, job_id, ids, feedback=None, outcome=None, counts_as_failure=False)
        groups.reopen_groups(connection, job_id, again)
        messages = begin_next_group(fleet, connection, job_id)
    fleet.publish(messages)
    return tuple(ids)


def _require_open(job: jobs.Job, what: str) -> None:
    if job.status in JOB_FINAL or job.steered_to_its_end:
        state = job.status if job.status in JOB_FINAL else "being ended"
        raise IllegalRequest(
            f"Job {job.id} is {state}: it can't be {what}.", context={"job_id": job.id, "status": job.status}
        )


def _require_affordable(connection: Connection, job: jobs.Job, max_cost_usd: float | None) -> None:
    if max_cost_usd is not None:
        budget.count_what_was_spent(connection, job.id)
        job = _lock(connection, job.id)
    allowed = job.max_cost_usd if max_cost_usd is None else max_cost_usd
    if allowed is None or job.spent_usd < allowed:
        return
    raise IllegalRequest(
        f"Job {job.id} has spent {usd_in_words(job.spent_usd)} of a budget of {usd_in_words(allowed)}.",
        context={"job_id": job.id, "spent_usd": job.spent_usd, "max_cost_usd": allowed},
        recovery=f"Give it a higher one: orchestrator retry {job.id} --max-cost-usd N",
    )


def _lock(connection: Connection, job_id: str) -> jobs.Job:
    job = jobs.lock_job(connection, job_id)
    if job is None:
        raise UnknownJob(f"There is no job {job_id}.", recovery="`orchestrator list` shows the jobs that there are.")
    return job
