"""The tree on a terminal: it fits, and shows what matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.live import Tree
from orchestrator.state.views import GroupView, JobView
from tests.support.job_views import a_group, a_job, a_subtask, ago


def _big_job() -> JobView:
    def group(number: int, status: str, subtask_status: str) -> GroupView:
        first = number * 100
        return a_group(number, status, *(a_subtask(first + n, subtask_status) for n in range(20)))

    mixed = a_group(
        6,
        "running",
        *(a_subtask(600 + n, "completed") for n in range(100)),
        *(a_subtask(700 + n, "in_progress") for n in range(5)),
        a_subtask(800, "failed", error="It broke.\nBadly."),
        *(a_subtask(900 + n) for n in range(94)),
    )
    ended = [group(number, "completed", "completed") for number in range(1, 6)]
    waiting = [group(number, "pending", "pending") for number in range(7, 15)]
    return a_job(*ended, mixed, *waiting)


@given(st.integers(4, 60), st.integers(20, 200))
def test_it_is_never_higher_than_the_screen(height: int, width: int) -> None:
    assert len(Tree(_big_job(), {}, 0.0, width).lines(height)) <= height


def test_what_works_is_shown_first_and_the_rest_is_counted() -> None:
    lines = [line.plain for line in Tree(_big_job(), {700: "compiling"}, 2.0, 80).lines(23)]
    assert lines[0] == "3f2a9c1b04d7 · Bookstore models · running"
    assert "group 5 · completed · 20 of 20 agents done" in lines
    assert "… 4 groups wait" in lines
    assert "group 7 · waits for group 6 · 0 of 20 agents done" in lines
    works = [line for line in lines if "●" in line]
    assert len(works) == 5
    assert "#700 Part 700 · shell" in works[0]
    assert "5.0 s  compiling" in works[0]
    assert any("✗ #800" in line and "It broke. Badly." in line for line in lines)
    assert any(line.startswith("   … and ") and "100 completed" in line for line in lines)
    assert "201 of 460 done · 1 failed · 5 running" in lines[-1]


def test_on_a_small_screen_the_groups_next_to_the_work_are_kept() -> None:
    lines = [line.plain for line in Tree(_big_job(), {}, 0.0, 80).lines(15)]
    assert lines[1:4] == [
        "… 3 groups ended before",
        "group 4 · completed · 20 of 20 agents done",
        "group 5 · completed · 20 of 20 agents done",
    ]


def test_a_second_attempt_says_so() -> None:
    group = a_group(1, "running", a_subtask(1, "in_progress", attempts=2), a_subtask(2, "pending", attempts=1))
    lines = [line.plain for line in Tree(a_job(group), {1: "at work"}, 0.0, 100).lines(20)]
    assert any("attempt 2 · at work" in line for line in lines)
    assert any("attempt 2 · waits for a free place" in line for line in lines)


def test_a_long_title_hides_neither_the_state_nor_the_time() -> None:
    job = a_job(a_group(1, "running", a_subtask(1, "in_progress")), title="Long " * 40, paused_at=ago(1))
    for width in (50, 60, 80):
        head, *_, bar = (line.plain for line in Tree(job, {}, 0.0, width).lines(20))
        assert head.endswith("… · running, paused")
        assert bar.endswith(" 0 of 1 done · 1 running · 8.0 s")
        assert max(len(head), len(bar)) <= width
