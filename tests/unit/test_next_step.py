"""What follows a merge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dispatch.next_step import MergedGroup, Proceed, SendBack, next_step

ALL_GOOD = {1: "completed", 2: "completed"}
ONE_BAD = {1: "completed", 2: "failed"}


def test_a_good_group_lets_the_job_go_on() -> None:
    assert next_step(MergedGroup(ALL_GOOD), "stop") == Proceed("completed", go_on=True)


def test_a_failed_subtask_stops_the_job_and_is_named() -> None:
    step = next_step(MergedGroup(ONE_BAD), "stop")
    assert step == Proceed("failed", go_on=False, reason="subtasks_failed", error="subtask #2 did not complete")


def test_continue_goes_on_after_a_failed_group_which_stays_failed() -> None:
    step = next_step(MergedGroup(ONE_BAD), "continue")
    assert isinstance(step, Proceed)
    assert (step.group_status, step.go_on) == ("failed", True)


@pytest.mark.parametrize(("quorum", "status"), [(1, "completed"), (2, "failed"), (9, "failed")])
def test_a_quorum_counts_the_completed(quorum: int, status: str) -> None:
    step = next_step(MergedGroup(ONE_BAD), {"quorum": quorum})
    assert isinstance(step, Proceed)
    assert step.group_status == status


def test_a_quorum_larger_than_the_group_asks_for_all_of_it() -> None:
    assert next_step(MergedGroup(ALL_GOOD), {"quorum": 9}) == Proceed("completed", go_on=True)


def test_conflicts_alone_are_the_reason() -> None:
    step = next_step(MergedGroup(ONE_BAD, conflicts=[2]), "stop")
    assert isinstance(step, Proceed)
    assert (step.reason, step.error) == ("conflict", "subtask #2 could not be merged")


def test_a_red_check_goes_back_to_the_last_merged_subtask_with_a_retry_left() -> None:
    assert next_step(MergedGroup(ALL_GOOD, check_passed=False, repairable=[1, 2]), "stop") == SendBack(2)


def test_a_red_check_that_nobody_can_mend_fails_the_group() -> None:
    step = next_step(MergedGroup(ALL_GOOD, check_passed=False), "stop")
    assert step == Proceed("failed", go_on=False, reason="group_check", error="the group's check is red")


def test_nothing_is_sent_back_when_the_job_ends_or_the_group_has_failed_anyway() -> None:
    red = MergedGroup(ALL_GOOD, check_passed=False, repairable=[1, 2])
    assert isinstance(next_step(red, "stop", ending=True), Proceed)
    assert isinstance(next_step(MergedGroup(ONE_BAD, check_passed=False, repairable=[1]), "stop"), Proceed)


STATUSES = st.dictionaries(
    st.integers(1, 9), st.sampled_from(["completed", "failed", "timeout", "skipped", "cancelled"]), min_size=1
)
POLICIES = st.one_of(st.sampled_from(["stop", "continue"]), st.integers(1, 9).map(lambda n: {"quorum": n}))


@given(STATUSES, POLICIES, st.sampled_from([None, True, False]), st.booleans())
def test_no_group_is_called_completed_with_a_red_check_or_without_any_completed_subtask(
    statuses: dict[int, str], policy: str, check_passed: bool | None, ending: bool
) -> None:
    step = next_step(MergedGroup(statuses, check_passed=check_passed), policy, ending=ending)
    assert isinstance(step, Proceed)
    if step.group_status == "completed":
        assert check_passed is not False
        assert "completed" in statuses.values()
    else:
        assert step.error
        assert step.go_on == (policy == "continue")
