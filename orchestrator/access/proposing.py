"""Ask an agent for a plan through the queue, for callers from Python; the command line shows each job as well."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.access.connect import Joined
from orchestrator.access.follow import follow
from orchestrator.errors import OrchestratorException, ProposalError

if TYPE_CHECKING:
    from orchestrator.plan.planning import Planning
    from orchestrator.plan.proposal import Proposal
    from orchestrator.state.results import JobResult

log = logging.getLogger(__name__)


def ask_for_plan(joined: Joined, planning: Planning) -> Proposal:
    """One job a question, until there is a plan. Interrupted, it cancels the job. Raises `ProposalError`."""
    from orchestrator.dispatch.steering import cancel_job
    from orchestrator.dispatch.submission import submit
    from orchestrator.state.engine import translated
    from orchestrator.state.results import job_result

    fleet = joined.fleet
    while planning.proposal is None:
        job_id = submit(fleet, planning.next_job()).job_id
        log.info("Asking %s for a plan", planning.terms.agent.name, extra={"event": "plan.asked", "job_id": job_id})
        try:
            for _ in follow(fleet.engine, job_id, grace_seconds=fleet.settings.unreachable_grace_seconds):
                joined.check()
            with translated(), fleet.engine.connect() as connection:
                result = job_result(connection, job_id)
        except BaseException:
            # Whoever waits no longer wants the plan no longer: no agent reads on for nobody.
            with suppress(OrchestratorException):
                cancel_job(fleet, job_id)
            raise
        hear_job(planning, result)
    return planning.proposal


def hear_job(planning: Planning, job: JobResult) -> None:
    """What came of the planning's newest job. Raises `ProposalError` where it gave no answer, or too many with faults."""
    [subtask] = job.subtasks
    if not job.succeeded:
        raise ProposalError(
            f"Job {job.job_id}, which was to propose a plan, is {job.status}: {subtask.error or job.error or job.reason}.",
            context={"job_id": job.job_id, "status": job.status, "outcome": subtask.outcome},
            recovery=f"See why: `orchestrator logs {job.job_id}`.",
        )
    planning.hear(subtask.result, job_id=job.job_id, spent=subtask.spent)
    if planning.proposal is None and planning.rejected is not None:
        log.warning(
            "The answer of job %s is no plan, and is asked for again: %s",
            job.job_id,
            "; ".join(fault.message for fault in planning.rejected.faults),
            extra={"event": "plan.rejected", "job_id": job.job_id},
        )
