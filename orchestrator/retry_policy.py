"""Whether a subtask is tried again, and when: a pure decision.

The back-off is `min(max, initial × 2^(n−1)) × (1 + jitter)` seconds, with n the number of failures so far and jitter
drawn from 0 to `JITTER` by the caller, so that the same inputs always give the same answer. The exponential form with
jitter is the one of Amazon's "Exponential Backoff and Jitter".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.outcomes import COUNTED_AGAINST_RETRIES, FAULTS_OF_THE_FLEET, FAULTS_OF_THE_PROVIDER, Outcome

JITTER: Final = 0.25
"""The largest share that is added to a back-off, so that forty agents do not come back in the same second."""


@dataclass(frozen=True)
class RetryPolicy:
    """What a plan allows. `initial_seconds` and `max_seconds` bound the back-off before jitter."""

    max_retries: int = 2
    max_redeliveries: int = 5
    initial_seconds: float = 2.0
    max_seconds: float = 300.0
    enabled: bool = True


@dataclass(frozen=True)
class Tally:
    """What a subtask has behind it, the attempt that just ended included."""

    failures: int = 0
    """Attempts that count against `max_retries`."""
    redeliveries: int = 0
    """Attempts that the fleet lost or interrupted."""
    provider_faults: int = 0
    """Attempts that the provider turned away, in a row."""


@dataclass(frozen=True)
class Retry:
    after_seconds: float


@dataclass(frozen=True)
class GiveUp:
    why: str


def backoff_seconds(policy: RetryPolicy, nth: int, jitter: float) -> float:
    """The wait before the retry that follows the `nth` failure (from 1). `jitter` lies in 0…1 and is scaled."""
    exponent = min(max(nth, 1) - 1, 62)
    scaled = min(max(jitter, 0.0), 1.0) * JITTER
    return min(policy.max_seconds, policy.initial_seconds * 2.0**exponent) * (1 + scaled)


def decide(
    policy: RetryPolicy,
    outcome: Outcome,
    tally: Tally,
    *,
    jitter: float,
    retry_after_seconds: float | None = None,
    seconds_to_deadline: float | None = None,
) -> Retry | GiveUp:
    """What follows an attempt that ended with `outcome` (not completed, not cancelled).

    A retry that could not start before the job's deadline is not promised.
    """
    match outcome:
        case Outcome.COMPLETED | Outcome.CANCELLED:
            return GiveUp(f"{outcome} is never retried")
        case _ if outcome in FAULTS_OF_THE_FLEET:
            if tally.redeliveries > policy.max_redeliveries:
                return GiveUp(
                    f"lost or interrupted {tally.redeliveries} times, max_redeliveries is {policy.max_redeliveries}"
                )
            wait = 0.0
        case _ if not policy.enabled:
            return GiveUp("retry_failed_agents is false")
        case _ if outcome in COUNTED_AGAINST_RETRIES:
            if tally.failures > policy.max_retries:
                return GiveUp(f"failed {tally.failures} times, max_retries is {policy.max_retries}")
            wait = backoff_seconds(policy, tally.failures, jitter)
        case _ if outcome in FAULTS_OF_THE_PROVIDER:
            wait = max(backoff_seconds(policy, tally.provider_faults, jitter), retry_after_seconds or 0.0)
        case _:
            return GiveUp(f"{outcome} is never retried")
    if seconds_to_deadline is not None and wait >= seconds_to_deadline:
        return GiveUp("the job's deadline comes before the next try")
    return Retry(wait)
