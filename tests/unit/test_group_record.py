"""The figures of a group run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.dispatch.group_record import (
    AttemptFigures,
    max_concurrent_agents,
    sequential_estimate_seconds,
    total_tokens,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def figures(begin: float, end: float, *, status: str = "completed", tokens: int | None = None) -> AttemptFigures:
    return AttemptFigures(
        id=1,
        subtask_id=1,
        status=status,
        started_at=START + timedelta(seconds=begin),
        finished_at=START + timedelta(seconds=end),
        agent_duration_seconds=end - begin,
        tokens=tokens,
    )


def test_failures_do_not_inflate_the_speed_up() -> None:
    attempts = [figures(0, 120), figures(0, 150), figures(0, 500, status="timeout")]
    assert sequential_estimate_seconds(attempts) == 270


def test_concurrency_is_what_overlapped() -> None:
    assert max_concurrent_agents([figures(0, 10), figures(5, 15), figures(9, 12)]) == 3
    assert max_concurrent_agents([figures(0, 10), figures(10, 20)]) == 1
    assert max_concurrent_agents([]) == 0


def test_tokens_are_unknown_where_nobody_counted() -> None:
    assert total_tokens([figures(0, 1)]) is None
    assert total_tokens([figures(0, 1), figures(0, 1, tokens=7), figures(0, 1, tokens=5)]) == 12
