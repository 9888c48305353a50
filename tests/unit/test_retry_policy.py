"""Whether and when a subtask is tried again: the table of outcomes, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.outcomes import COUNTED_AGAINST_RETRIES, FAULTS_OF_THE_FLEET, FAULTS_OF_THE_PROVIDER, Outcome
from orchestrator.retry_policy import JITTER, GiveUp, Retry, RetryPolicy, Tally, backoff_seconds, decide

POLICY = RetryPolicy(max_retries=2, max_redeliveries=3, initial_seconds=2, max_seconds=60)
NEVER = set(Outcome) - COUNTED_AGAINST_RETRIES - FAULTS_OF_THE_FLEET - FAULTS_OF_THE_PROVIDER


@pytest.mark.parametrize("outcome", sorted(COUNTED_AGAINST_RETRIES))
def test_a_failure_is_retried_max_retries_times(outcome: Outcome) -> None:
    assert [type(decide(POLICY, outcome, Tally(failures=n), jitter=0)) for n in (1, 2, 3)] == [Retry, Retry, GiveUp]


@pytest.mark.parametrize("outcome", sorted(NEVER))
def test_what_a_retry_can_not_mend_is_not_retried(outcome: Outcome) -> None:
    assert isinstance(decide(POLICY, outcome, Tally(), jitter=0), GiveUp)


@pytest.mark.parametrize("outcome", sorted(FAULTS_OF_THE_FLEET))
def test_the_fleets_fault_is_retried_at_once_and_spends_no_retry(outcome: Outcome) -> None:
    tally = Tally(failures=99, redeliveries=3)
    assert decide(POLICY, outcome, tally, jitter=1) == Retry(0)
    assert isinstance(decide(POLICY, outcome, Tally(redeliveries=4), jitter=1), GiveUp)


@pytest.mark.parametrize("outcome", sorted(FAULTS_OF_THE_PROVIDER))
def test_the_providers_wish_is_obeyed_and_only_the_deadline_ends_the_patience(outcome: Outcome) -> None:
    tally = Tally(failures=99, provider_faults=50)
    assert decide(POLICY, outcome, tally, jitter=0, retry_after_seconds=500) == Retry(500)
    assert decide(POLICY, outcome, Tally(provider_faults=1), jitter=0, retry_after_seconds=0.1) == Retry(2)
    given_up = decide(POLICY, outcome, tally, jitter=0, retry_after_seconds=500, seconds_to_deadline=499)
    assert isinstance(given_up, GiveUp)


def test_retries_can_be_turned_off_but_not_the_rescue_of_a_lost_worker() -> None:
    off = RetryPolicy(enabled=False)
    assert isinstance(decide(off, Outcome.FAILED, Tally(failures=1), jitter=0), GiveUp)
    assert isinstance(decide(off, Outcome.RATE_LIMITED, Tally(provider_faults=1), jitter=0), GiveUp)
    assert decide(off, Outcome.WORKER_LOST, Tally(redeliveries=1), jitter=0) == Retry(0)


def test_the_back_off_doubles_up_to_its_maximum() -> None:
    assert [backoff_seconds(POLICY, n, jitter=0) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]


@given(st.integers(-5, 10**6), st.floats(-2, 3))
def test_the_back_off_is_clamped_whatever_comes_in(nth: int, jitter: float) -> None:
    wait = backoff_seconds(POLICY, nth, jitter)
    assert POLICY.initial_seconds <= wait <= POLICY.max_seconds * (1 + JITTER)


@given(
    st.sampled_from(sorted(Outcome)),
    st.integers(0, 10),
    st.integers(0, 10),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_no_retry_is_promised_after_the_deadline(
    outcome: Outcome, failures: int, redeliveries: int, jitter: float, left: float | None
) -> None:
    decision = decide(POLICY, outcome, Tally(failures, redeliveries, failures), jitter=jitter, seconds_to_deadline=left)
    if isinstance(decision, Retry) and left is not None:
        assert decision.after_seconds < left
