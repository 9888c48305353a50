"""The figures of a group run: pure, from its attempts' own starts and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class AttemptFigures:
    """One ended attempt of the group run. `agent_duration_seconds` counts the agent's process alone."""

    id: int
    subtask_id: int
    status: str
    started_at: datetime
    finished_at: datetime
    agent_duration_seconds: float | None
    tokens: int | None


def sequential_estimate_seconds(attempts: Sequence[AttemptFigures]) -> float:
    """What the completed agents would have taken one after the other. Failures and retries do not inflate it."""
    return sum(attempt.agent_duration_seconds or 0.0 for attempt in attempts if attempt.status == "completed")


def max_concurrent_agents(attempts: Sequence[AttemptFigures]) -> int:
    """The most attempts that were under way at one moment; an end and a start at the same instant do not overlap."""
    moments = sorted(
        [(attempt.started_at, 1) for attempt in attempts] + [(attempt.finished_at, -1) for attempt in attempts],
        key=lambda moment: (moment[0], moment[1]),
    )
    at_once = most = 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    return most


def total_tokens(attempts: Sequence[AttemptFigures]) -> int | None:
    """The sum over all attempts that reported any; None where none did."""
    reported = [attempt.tokens for attempt in attempts if attempt.tokens is not None]
    return sum(reported) if reported else None
