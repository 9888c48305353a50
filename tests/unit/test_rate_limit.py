"""Rates by example, and what holds for any order of words from a provider."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.outcomes import Outcome
from orchestrator.rate_limit import LONGEST_WISH_SECONDS, Limit, answered, is_throttle, throttled, to_admit, wish
from orchestrator.retry_policy import JITTER, RetryPolicy

POLICY = RetryPolicy(initial_seconds=2, max_seconds=60)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)


def turned_away(
    limit: Limit | None, now: float, *, running: int, started: float, after: float | None = None, jitter: float = 0.0
) -> Limit:
    return throttled(
        limit,
        now=at(now),
        running=running,
        started_at=at(started),
        retry_after_seconds=after,
        policy=POLICY,
        jitter=jitter,
    )


def test_the_first_word_closes_the_account_for_as_long_as_it_says_and_halves_what_ran() -> None:
    limit = turned_away(None, 10, running=8, started=1, after=30)
    assert (limit.closed_until, limit.allowed, limit.most) == (at(40), 4, 8)


def test_a_burst_of_agents_that_were_under_way_halves_once_and_the_longest_wish_holds() -> None:
    limit = turned_away(None, 10, running=8, started=1, after=30)
    for running, after in ((7, 40.0), (6, 20.0), (5, None)):
        limit = turned_away(limit, 11, running=running, started=2, after=after)
    assert (limit.closed_until, limit.allowed, limit.strikes) == (at(51), 4, 1)


def test_a_straggler_that_is_turned_away_after_the_opening_closes_again_and_halves_nothing() -> None:
    limit = turned_away(None, 10, running=8, started=1, after=5)
    assert turned_away(limit, 100, running=5, started=2).closed_until == at(102)
    assert turned_away(limit, 100, running=5, started=2).allowed == 4


def test_without_a_wish_the_back_off_doubles_until_answers_come() -> None:
    limit = turned_away(None, 0, running=8, started=-1)
    assert limit.closed_until == at(2)
    limit = turned_away(limit, 10, running=4, started=9)
    assert (limit.closed_until, limit.allowed) == (at(14), 2)
    limit = turned_away(limit, 20, running=1, started=19)
    assert (limit.closed_until, limit.allowed) == (at(28), 1)
    recovered = answered(limit, now=at(40), started_at=at(30))
    assert recovered is not None
    assert turned_away(recovered, 50, running=1, started=45).closed_until == at(52)


def test_a_short_wish_that_is_told_again_and_again_is_not_taken_at_its_word() -> None:
    limit = turned_away(None, 0, running=1, started=-1, after=0.5)
    assert limit.closed_until == at(2)
    limit = turned_away(limit, 10, running=1, started=9, after=0.5)
    assert turned_away(limit, 20, running=1, started=19, after=0.5).closed_until == at(28)


def test_each_agent_that_began_since_then_adds_one_until_there_is_no_limit() -> None:
    limit: Limit | None = turned_away(None, 10, running=4, started=1, after=5)
    seen = []
    while limit is not None:
        seen.append(limit.allowed)
        limit = answered(limit, now=at(20), started_at=at(16))
    assert seen == [2, 3, 4]


@pytest.mark.parametrize(("now", "started"), [(14, 11), (20, 10), (20, 3)])
def test_what_began_before_or_ends_while_it_is_closed_proves_nothing(now: float, started: float) -> None:
    limit = turned_away(None, 10, running=8, started=1, after=5)
    assert answered(limit, now=at(now), started_at=at(started)) == limit


def test_those_that_wait_are_let_go_a_quarter_at_a_time() -> None:
    limit = Limit(closed_until=at(5), allowed=20, most=40, throttled_at=at(0), strikes=1)
    assert to_admit(limit, now=at(4), busy=0, waiting=99) == 0
    assert to_admit(limit, now=at(5), busy=0, waiting=99) == 5
    assert to_admit(limit, now=at(5), busy=18, waiting=99) == 2
    assert to_admit(limit, now=at(5), busy=25, waiting=99) == 0
    assert to_admit(limit, now=at(5), busy=0, waiting=3) == 3
    assert to_admit(None, now=at(5), busy=25, waiting=99) == 99


@pytest.mark.parametrize(
    ("outcome", "after", "is_one"),
    [
        (Outcome.RATE_LIMITED, None, True),
        (Outcome.RATE_LIMITED, 5.0, True),
        (Outcome.PROVIDER_UNAVAILABLE, 5.0, True),
        (Outcome.PROVIDER_UNAVAILABLE, None, False),
        (Outcome.PROVIDER_UNAVAILABLE, 0.0, False),
        (Outcome.FAILED, 5.0, False),
    ],
)
def test_what_speaks_of_the_whole_account(outcome: Outcome, after: float | None, is_one: bool) -> None:
    assert is_throttle(outcome, after) is is_one


def test_a_wish_that_nobody_can_keep_is_none() -> None:
    assert [wish(said) for said in (None, float("nan"), -1.0, 0.0, "soon", True, [3])] == [None] * 7
    assert [wish(said) for said in (0.5, float("inf"), 1e12)] == [0.5, LONGEST_WISH_SECONDS, LONGEST_WISH_SECONDS]


words = st.tuples(
    st.floats(0, 100),  # seconds since the word before
    st.integers(1, 50),  # agents at work
    st.floats(0, 200),  # how long this one has been at work
    st.one_of(st.none(), st.floats(-1, 1e7), st.just(float("inf"))),
    st.floats(0, 1),
    st.booleans(),
)


@given(st.lists(words, max_size=30))
def test_in_any_order_one_may_always_work_and_a_closing_is_never_taken_back(history: list[tuple[float, ...]]) -> None:
    limit: Limit | None = None
    now = 0.0
    for passed, running, age, after, jitter, gets_answers in history:
        now += passed
        before = limit
        if gets_answers:
            limit = limit and answered(limit, now=at(now), started_at=at(now - age))
            assert limit is None or before is None or before.allowed <= limit.allowed <= before.allowed + 1
            continue
        limit = turned_away(limit, now, running=int(running), started=now - age, after=after, jitter=jitter)
        longest = max(POLICY.max_seconds * (1 + JITTER), LONGEST_WISH_SECONDS)
        assert limit.closed_until <= max(at(now + longest), before.closed_until if before else at(0))
        if before is not None:
            assert limit.closed_until >= before.closed_until
            assert limit.allowed <= before.allowed
            assert (limit.allowed, limit.throttled_at) == (before.allowed, before.throttled_at) or at(
                now - age
            ) > before.throttled_at
        assert 1 <= limit.allowed <= limit.most


@given(st.integers(1, 10_000), st.floats(0, 1e6))
def test_it_always_recovers(running: int, after: float) -> None:
    limit: Limit | None = turned_away(None, 0, running=running, started=-1, after=after)
    now, needed = LONGEST_WISH_SECONDS + 1, 0
    while limit is not None:
        limit = answered(limit, now=at(now), started_at=at(now - 1))
        needed += 1
    assert needed <= running


@given(st.lists(st.tuples(st.integers(1, 50), st.one_of(st.none(), st.floats(0, 100))), min_size=1, max_size=50))
def test_a_burst_counts_once_however_many_come(burst: list[tuple[int, float | None]]) -> None:
    first, *rest = burst
    limit = turned_away(None, 10, running=first[0], started=0, after=first[1])
    halved = limit.allowed
    for running, after in rest:
        limit = turned_away(limit, 11, running=running, started=0, after=after)
    assert (limit.allowed, limit.strikes) == (halved, 1)


@given(st.integers(1, 100), st.integers(0, 200), st.integers(0, 200))
def test_never_more_are_let_go_than_may_be_at_work(allowed: int, busy: int, waiting: int) -> None:
    limit = Limit(closed_until=at(0), allowed=allowed, most=200, throttled_at=at(0), strikes=1)
    let_go = to_admit(limit, now=at(1), busy=busy, waiting=waiting)
    assert 0 <= let_go <= waiting
    assert busy + let_go <= max(busy, allowed)
    assert let_go > 0 or busy >= allowed or not waiting
