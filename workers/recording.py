"""Recording how an attempt ended, and what follows: one transaction, repeated until the database has taken it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.dispatch.dispatcher import end_job_if_idle, request_end, stop_spending
from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import DatabaseUnavailable
from orchestrator.outcomes import COUNTED_AGAINST_RETRIES, FAULTS_OF_THE_FLEET, FAULTS_OF_THE_PROVIDER, Outcome
from orchestrator.rate_limit import wish
from orchestrator.retry_policy import GiveUp, Retry, RetryPolicy, Tally, decide
from orchestrator.settings import Settings
from orchestrator.state.engine import translated
from orchestrator.state.one_trip import in_one_trip
from orchestrator.state.outbox import Message
from orchestrator.state.transitions import ends, jobs, subtasks
from orchestrator.state.transitions.claims import Claim
from orchestrator.state.transitions.ends import AttemptEnd, Ended
from orchestrator.supervisor import StopSignal
from orchestrator.together import Together
from workers.judgement import INTERRUPTED, LEASE_LOST

log = logging.getLogger(__name__)

RECORD_RETRY_SECONDS: Final = 1.0
LEAVING_PATIENCE_SECONDS: Final = 30.0
"""How long a worker that was asked to stop still tries to record what its agents have finished."""


@dataclass(frozen=True)
class Recorded:
    """`landed` is False where the lease was lost; `messages` are to be published."""

    landed: bool
    is_final: bool = False
    messages: Sequence[Message] = ()


class Recorder:
    """Records how attempts ended. One a worker, for all its threads."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._complete = Together(self._complete_all, shared=(DatabaseUnavailable,))

    def complete(self, job_id: str, ended: Ended) -> Recorded:
        """A success stands whatever becomes of its job, so nothing has to be asked first: one round trip, and one for
        all successes of a job that come while another is recorded. They would wait for each other's lock anyway."""
        return self._complete(job_id, ended)

    def _complete_all(self, job_id: str, ended: Sequence[Ended]) -> list[Recorded]:
        locked, landed, released = in_one_trip(
            self.fleet.engine,
            jobs.lock_statement(job_id),
            ends.end_statement(job_id, ended),
            jobs.release_statement(job_id, has_budget=any(one.has_budget for one in ended)),
        )
        if locked and locked[0]["cancel_requested_at"] is not None:
            with translated(), self.fleet.engine.begin() as connection:
                end_job_if_idle(connection, job_id)
        tokens = {row["lease_token"] for row in landed}
        owed = jobs.released(released)
        if any(row["budget_is_spent"] for row in [*locked, *landed]):
            with translated(), self.fleet.engine.begin() as connection:
                owed += stop_spending(self.fleet, connection, job_id)
        # The first publishes for all, while the next ones are recorded.
        messages = [owed, *([] for _ in ended[1:])]
        return [Recorded(one.lease_token in tokens, True, told) for one, told in zip(ended, messages, strict=True)]


def record(
    recorder: Recorder,
    claim: Claim,
    end: AttemptEnd,
    stop: StopSignal,
    before_waiting: Callable[[], None] = lambda: None,
) -> bool:
    """Record the outcome, and wait for the database as long as the lease is ours. True when the subtask is final.

    An end that the database does not take is recorded without what the agent's program has told of it: work that is done
    counts, whatever a program may print.
    """
    retry = follow_up(claim, end, recorder.fleet.settings)
    began, is_bare = time.monotonic(), False
    while True:
        try:
            return _record_once(recorder, claim, end, retry)
        except DatabaseUnavailable as error:
            leaving = stop.reason == INTERRUPTED and time.monotonic() - began > LEAVING_PATIENCE_SECONDS
            if stop.reason == LEASE_LOST or leaving:
                return False
            before_waiting()
            log.warning(
                "The outcome of subtask %d waits for the database: %s",
                claim.subtask_id,
                error.message,
                extra={"event": "record.database_away", "job_id": claim.job_id, "subtask_id": claim.subtask_id},
            )
            time.sleep(RECORD_RETRY_SECONDS)
        except Exception:
            if is_bare:
                raise
            log.exception(
                "The end of subtask %d can't be recorded as it is: its figures are left out.",
                claim.subtask_id,
                extra={"event": "record.refused", "job_id": claim.job_id, "subtask_id": claim.subtask_id},
            )
            end, is_bare = _bare(end), True


def _bare(end: AttemptEnd) -> AttemptEnd:
    """What this worker knows of its own of an attempt's end, and nothing that a program has told."""
    return AttemptEnd(
        end.outcome,
        error=None if end.outcome is Outcome.COMPLETED else "what its program said of its end could not be stored",
        commit=end.commit,
        ref=end.ref,
        exit_code=end.exit_code,
        signal=end.signal,
        cost_unknown=end.agent_started_at is not None,
        agent_started_at=end.agent_started_at,
        agent_duration_seconds=end.agent_duration_seconds,
        waits_for=end.waits_for,
    )


def _record_once(recorder: Recorder, claim: Claim, end: AttemptEnd, retry: Retry | None) -> bool:
    fleet = recorder.fleet
    if end.outcome is Outcome.COMPLETED:
        recorded = recorder.complete(claim.job_id, _ended(claim, end, None))
    else:
        recorded = _end(fleet, claim, end, retry)
    fleet.publish(recorded.messages)
    ids = {"job_id": claim.job_id, "subtask_id": claim.subtask_id}
    if not recorded.landed:
        log.warning(
            "Subtask %d was taken from this worker; its outcome is not recorded.",
            claim.subtask_id,
            extra={"event": "attempt.lease_lost", **ids},
        )
        with translated(), fleet.engine.connect() as connection:
            return subtasks.is_final(connection, claim.job_id, claim.subtask_id)
    log.info(
        "Agent ended subtask %d: %s",
        claim.subtask_id,
        end.outcome,
        extra={"event": "attempt.finished", "outcome": str(end.outcome), **ids},
    )
    return recorded.is_final


def _end(fleet: Fleet, claim: Claim, end: AttemptEnd, retry: Retry | None) -> Recorded:
    """Any other end depends on what has become of the job."""
    with translated(), fleet.engine.begin() as connection:
        job = jobs.lock_job(connection, claim.job_id)
        if job is None:
            return Recorded(landed=False)
        if end.outcome is Outcome.CANCELLED:
            # Told by the job's row; or by this worker's own clock, which may be the first to see the deadline pass.
            request_end(connection, claim.job_id, "deadline")
        if job.steered_to_its_end:
            # What the agent was doing when its job ended is not its failure, and nothing is tried again.
            retry = None
            end = replace(end, outcome=Outcome.CANCELLED, error=end.error or "the job ended")
        if not ends.end_attempt(connection, claim.job_id, _ended(claim, end, retry)):
            return Recorded(landed=False)
        messages = jobs.release(connection, claim.job_id)
        if job.max_cost_usd is not None:
            messages += stop_spending(fleet, connection, claim.job_id)
        end_job_if_idle(connection, claim.job_id)
    return Recorded(landed=True, is_final=retry is None, messages=messages)


def _ended(claim: Claim, end: AttemptEnd, retry: Retry | None) -> Ended:
    return Ended(
        claim.subtask_id,
        claim.lease_token,
        end,
        retry=retry,
        feedback=_feedback(end),
        failure=end.outcome in COUNTED_AGAINST_RETRIES,
        redelivery=end.outcome in FAULTS_OF_THE_FLEET,
        provider_fault=end.outcome in FAULTS_OF_THE_PROVIDER,
        has_budget=claim.has_budget,
    )


def follow_up(claim: Claim, end: AttemptEnd, settings: Settings) -> Retry | None:
    """The retry that the policy grants after this end, if any."""
    if end.outcome in {Outcome.COMPLETED, Outcome.CANCELLED}:
        return None
    decision = decide(
        RetryPolicy(
            max_retries=claim.spec["max_retries"],
            max_redeliveries=settings.max_redeliveries,
            # What waits for a closed account has its back-off there: one wait, not two.
            initial_seconds=0.0 if end.waits_for else settings.retry_initial_seconds,
            max_seconds=settings.retry_max_seconds,
            enabled=claim.retry_enabled,
        ),
        end.outcome,
        Tally(
            failures=claim.failures + (end.outcome in COUNTED_AGAINST_RETRIES),
            redeliveries=claim.redeliveries + (end.outcome in FAULTS_OF_THE_FLEET),
            provider_faults=claim.provider_faults + (end.outcome in FAULTS_OF_THE_PROVIDER),
        ),
        jitter=random.random(),  # noqa: S311 - it spreads load, it guards nothing
        retry_after_seconds=wish(end.retry_after_seconds),
        seconds_to_deadline=claim.seconds_to_deadline(),
    )
    if isinstance(decision, GiveUp):
        log.info("Subtask %d is not tried again: %s", claim.subtask_id, decision.why, extra={"event": "retry.refused"})
        return None
    return decision


def _feedback(end: AttemptEnd) -> str | None:
    """What the next attempt's prompt says went wrong."""
    if end.outcome is Outcome.COMPLETED:
        return None
    parts = [f"The last attempt ended as {end.outcome}: {end.error or 'no reason was given'}."]
    if end.check_output:
        parts.append(f"The check's output:\n{end.check_output}")
    return "\n\n".join(parts)
