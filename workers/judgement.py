"""Which outcome stands: pure. Who stopped a program knows better than the program how it ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator import supervisor
from orchestrator.check import CheckResult
from orchestrator.outcomes import Outcome
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import Ending
from workers.agents.protocol import AgentEnd

INTERRUPTED: Final = "interrupted"
LEASE_LOST: Final = "lease_lost"
UNREACHABLE: Final = "unreachable"
DEADLINE: Final = "deadline"
GAVE_UP: Final = "gave_up"
"""The agent's adapter has seen that the program would go on in vain: what it says of the end stands."""
OVER_LIMIT: Final = "resource_limit: "
"""Followed by what was used and what the limit is, in words."""

_OUTCOME_AND_WORDS: Final = {
    INTERRUPTED: (Outcome.INTERRUPTED, "the worker was asked to stop"),
    UNREACHABLE: (Outcome.INTERRUPTED, "the database stayed away for too long"),
    LEASE_LOST: (Outcome.WORKER_LOST, "the lease was lost"),
    "cancelled": (Outcome.CANCELLED, "the job was cancelled"),
    DEADLINE: (Outcome.CANCELLED, "the job's deadline passed"),
}
"""Reason of the stop signal → what the attempt is then."""


def judge(
    ending: Ending,
    said: AgentEnd,
    *,
    idle_timeout_seconds: float | None,
    deadline_passed: bool,
    session_refused: bool = False,
) -> AttemptEnd:
    """The end of the agent's process: what its adapter made of it, unless a clock or the stop signal ended it.

    `deadline_passed` speaks of the job, whose deadline bounds each agent's time as well. `session_refused`: it was asked
    to go on with a session that it did not know; it has not begun, and the next attempt starts anew at once.
    """
    end = AttemptEnd(
        outcome=said.outcome,
        error=said.error,
        result=said.result,
        exit_code=ending.exit_code,
        signal=ending.signal,
        session_id=said.session_id,
        model=said.model,
        usage=said.usage or {},
        cost_usd=said.cost_usd,
        agent_started_at=ending.started_at,
        agent_duration_seconds=ending.duration_seconds,
        retry_after_seconds=said.retry_after_seconds,
    )
    match ending.stopped:
        case None if session_refused:
            return replace(
                end, outcome=Outcome.INTERRUPTED, error=f"its program does not know the session: {said.error}"
            )
        case None:
            return end
        case _ if ending.stopped == GAVE_UP:
            return end
        case supervisor.TIMEOUT if deadline_passed:
            return stopped(end, DEADLINE)
        case supervisor.TIMEOUT:
            error = f"ended after {ending.duration_seconds:.0f} s, its time limit"
            return replace(end, outcome=Outcome.TIMEOUT, error=error)
        case supervisor.IDLE_TIMEOUT:
            error = f"ended after {idle_timeout_seconds or 0:g} s without any output"
            return replace(end, outcome=Outcome.IDLE_TIMEOUT, error=error)
        case reason:
            return stopped(end, reason)


def ended_from_outside(ending: Ending, reason: str | None) -> Ending:
    """`ending`, with the reason of the stop signal where that was set by whoever had ended the program: the guard, or
    the kernel at a limit. A program that they end looks as if it had ended by itself."""
    if ending.stopped is None and reason is not None and (reason == LEASE_LOST or reason.startswith(OVER_LIMIT)):
        return replace(ending, stopped=reason)
    return ending


def stopped(end: AttemptEnd, reason: str) -> AttemptEnd:
    """The end of an attempt that was told to stop, whatever its program said."""
    if reason.startswith(OVER_LIMIT):
        return replace(end, outcome=Outcome.RESOURCE_LIMIT, error=reason.removeprefix(OVER_LIMIT))
    outcome, words = _OUTCOME_AND_WORDS.get(reason, (Outcome.CANCELLED, "the job ended"))
    return replace(end, outcome=outcome, error=words)


def words_of_red(check: CheckResult) -> str:
    """One clause on a check that did not pass, with the last line that it printed."""
    how = "took too long" if check.stopped == supervisor.TIMEOUT else f"ended with exit code {check.exit_code}"
    return f"the check {how}: {check.output.last_lines(1) or 'it printed nothing'}"
