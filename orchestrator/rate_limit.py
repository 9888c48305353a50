"""How many agents an account of a provider may have at work: pure decisions. Additive increase, multiplicative decrease.

    the provider throttles     the account is closed until `Retry-After` is over, at least for a back-off that doubles from
                               one such word to the next; then half of what was at work may be, at least one
    … an agent that was under  the same burst: it may close the account for longer, and halves nothing
      way when it was halved
    an agent that began since  one more may be at work; with more allowed than ever were at work the limit is gone
      then got its answers
    nothing for an hour        the limit is forgotten: it says nothing of today's load

Why halves and ones: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance" (1989):
whoever shares an account then comes to equal shares of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.outcomes import Outcome
from orchestrator.retry_policy import RetryPolicy, backoff_seconds

LONGEST_WISH_SECONDS: Final = 24 * 3600.0
"""A provider that asks for more patience is asked again after a day."""
FORGOTTEN_AFTER_SECONDS: Final = 3600.0

ANSWERED: Final = frozenset(
    {
        Outcome.COMPLETED,
        Outcome.NO_CHANGES,
        Outcome.CHECK_FAILED,
        Outcome.TURN_LIMIT,
        Outcome.BUDGET_EXCEEDED,
        Outcome.PERMISSION_DENIED,
    }
)
"""Ends that an agent comes to only when its provider has answered it to the last, whatever became of the work."""


@dataclass(frozen=True)
class Limit:
    """What the fleet has learned of an account. Without one there is no limit. Times are of the database's clock."""

    closed_until: datetime
    allowed: int
    """Agents at work at once, when it is open."""
    most: int
    """Were at work when the provider had enough: with more allowed than these the limit is over."""
    throttled_at: datetime
    """When it was halved last."""
    strikes: int
    """Halvings since an agent got its answers: the back-off's exponent."""


def is_throttle(outcome: Outcome, retry_after_seconds: float | None) -> bool:
    """Whether an end speaks of the whole account: too much was asked (429, 529), or the provider says when to come
    back. Any other fault of a provider (500, a connection that broke) says nothing of others."""
    return outcome is Outcome.RATE_LIMITED or (
        outcome is Outcome.PROVIDER_UNAVAILABLE and wish(retry_after_seconds) is not None
    )


def wish(retry_after_seconds: object) -> float | None:
    """A `Retry-After` that can be kept: seconds above zero, at most a day. None of anything else that a program tells."""
    if not isinstance(retry_after_seconds, int | float) or isinstance(retry_after_seconds, bool):
        return None
    if math.isnan(retry_after_seconds) or retry_after_seconds <= 0:
        return None
    return min(retry_after_seconds, LONGEST_WISH_SECONDS)


def throttled(
    limit: Limit | None,
    *,
    now: datetime,
    running: int,
    started_at: datetime,
    retry_after_seconds: float | None,
    policy: RetryPolicy,
    jitter: float,
) -> Limit:
    """The limit after the provider has turned an agent away.

    `running` counts the account's agents at work, this one included; `started_at` is when this one began, `jitter` lies
    in 0…1 and spreads the back-off. A short wish that is told again and again is not taken at its word: some programs
    tell their own first pause for one.
    """
    is_same_burst = limit is not None and started_at <= limit.throttled_at
    strikes = (limit.strikes if limit else 0) + (not is_same_burst)
    wanted = wish(retry_after_seconds)
    until = now + timedelta(seconds=max(backoff_seconds(policy, strikes, jitter), wanted or 0.0))
    if limit is None:
        return Limit(until, max(1, running // 2), running, now, strikes)
    if is_same_burst:
        # A straggler without a wish, that comes while the account is closed, has nothing to add.
        told = wanted is not None or now >= limit.closed_until
        return replace(limit, closed_until=max(limit.closed_until, until) if told else limit.closed_until)
    return Limit(
        max(limit.closed_until, until),
        max(1, min(running, limit.allowed) // 2),
        max(limit.most, running),
        now,
        strikes,
    )


def answered(limit: Limit, *, now: datetime, started_at: datetime) -> Limit | None:
    """The limit after an agent got its answers; None: it is over. One that began before the last halving, or ends while
    the account is closed, tells nothing of what may be at work now."""
    if started_at <= limit.throttled_at or now < limit.closed_until:
        return limit
    if limit.allowed >= limit.most:
        return None
    return replace(limit, allowed=limit.allowed + 1, strikes=0)


def to_admit(limit: Limit | None, *, now: datetime, busy: int, waiting: int) -> int:
    """How many of those that wait for the account are let go at once. `busy` are at work or on their way.

    A quarter of what is allowed, at least one: who looks again soon lets the next ones go, so that those who waited
    together do not start in the same instant.
    """
    if limit is None:
        return waiting
    if now < limit.closed_until:
        return 0
    return max(0, min(limit.allowed - busy, max(1, limit.allowed // 4), waiting))
