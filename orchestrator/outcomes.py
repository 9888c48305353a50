"""How an attempt ends: a closed list, and what follows from each entry."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """The end of an attempt. An attempt has exactly one, and it never changes."""

    COMPLETED = "completed"
    FAILED = "failed"
    """The agent said that it failed, or ended in a way that is no success."""
    NO_CHANGES = "no_changes"
    """The agent said that it succeeded, but changed nothing where a change was required."""
    CHECK_FAILED = "check_failed"
    """The subtask's check was red; its output goes into the next prompt."""
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    RATE_LIMITED = "rate_limited"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    WORKER_LOST = "worker_lost"
    """The lease expired: the worker died, or could not be heard."""
    INTERRUPTED = "interrupted"
    """The worker was asked to stop."""
    TURN_LIMIT = "turn_limit"
    BUDGET_EXCEEDED = "budget_exceeded"
    AUTH_ERROR = "auth_error"
    PERMISSION_DENIED = "permission_denied"
    AGENT_MISSING = "agent_missing"
    BAD_CONFIG = "bad_config"
    RESOURCE_LIMIT = "resource_limit"
    CANCELLED = "cancelled"


class SubtaskOutcome(StrEnum):
    """Ends of a subtask that no attempt has."""

    CONFLICT = "conflict"
    """Its change contradicts one that was merged before it."""
    SKIPPED = "skipped"
    """It never started: an earlier group failed, or the job ended before it."""


COUNTED_AGAINST_RETRIES: Final = frozenset(
    {
        Outcome.FAILED,
        Outcome.NO_CHANGES,
        Outcome.CHECK_FAILED,
        Outcome.TIMEOUT,
        Outcome.IDLE_TIMEOUT,
    }
)
"""Retried after a back-off, at most `max_retries` times."""

FAULTS_OF_THE_PROVIDER: Final = frozenset({Outcome.RATE_LIMITED, Outcome.PROVIDER_UNAVAILABLE})
"""Retried after `Retry-After` or a back-off, for as long as the job's deadline allows."""

FAULTS_OF_THE_FLEET: Final = frozenset({Outcome.WORKER_LOST, Outcome.INTERRUPTED})
"""Retried at once, at most `max_redeliveries` times: the agent was not to blame."""

RESUMED_AFTER: Final = frozenset({Outcome.TIMEOUT, Outcome.IDLE_TIMEOUT}) | FAULTS_OF_THE_PROVIDER | FAULTS_OF_THE_FLEET
"""The agent was cut off, and not judged: the next attempt goes on with its session and its work where it can."""


def subtask_status_after(outcome: Outcome) -> str:
    """The final status of a subtask whose last attempt ended so: one of the five that results speak of."""
    if outcome is Outcome.COMPLETED:
        return "completed"
    if outcome in {Outcome.TIMEOUT, Outcome.IDLE_TIMEOUT}:
        return "timeout"
    if outcome is Outcome.CANCELLED:
        return "cancelled"
    return "failed"
