"""The chaos driver's own parts: nothing of the list is left out, a seed can be repeated, overlaps are seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.fault_points import FAULT_POINTS
from tests.chaos.diary import overlaps, read_diary
from tests.chaos.faults import FAULTS, costs_of
from tests.chaos.points import ACTIONS, Hit, Points
from tests.chaos.report import Report
from tests.chaos.schedule import DONE_WITHIN, EACH_A_RUN, draw
from tests.chaos.side_by_side import run_side_by_side
from tests.chaos.world import SLOTS, WORKERS


@pytest.mark.parametrize("first", [1, 2, 7, 181])
def test_every_point_and_every_fault_is_in_any_twenty_seeds(first: int) -> None:
    drawn = [draw(seed, list(FAULTS)) for seed in range(first, first + DONE_WITHIN)]
    assert {point.point for schedule in drawn for point in schedule.points} == FAULT_POINTS
    assert {name for schedule in drawn for name in schedule.faults} == set(FAULTS)


def test_every_point_meets_every_action() -> None:
    seeds = range(1, 1 + math.ceil(len(FAULT_POINTS) * len(ACTIONS) / EACH_A_RUN))
    met = {(point.point, point.action) for seed in seeds for point in draw(seed, list(FAULTS)).points}
    assert met >= {(point, action) for point in FAULT_POINTS for action in ACTIONS}


def test_a_seed_draws_the_same_again() -> None:
    assert draw(12, list(FAULTS)) == draw(12, list(FAULTS)) != draw(13, list(FAULTS))


def test_overlaps_are_seen_in_what_agents_wrote(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.write_text(
        "+ 1 1 w-1.10 100.0\n. 1 1 w-1.10 103.5\n"
        "+ 1 2 w-2.11 103.0\n- 1 2 w-2.11 105.0\n"
        "+ 1 3 w-2.12 105.5\n! 1 3 w-2.12 105.6\n"
        "+ 2 1 w-1.13 100.0\n- 2 1 w-1.13 106.0\n"
    )
    lives = read_diary(diary)
    ((earlier, later, seconds),) = overlaps(lives)
    assert (earlier.attempt_id, later.attempt_id, seconds) == (10, 11, 0.5)
    assert all(life.starts == 1 for life in lives)
    assert [life.attempt_id for life in lives if not life.finds_all] == [12]


def test_a_point_that_nobody_got_to_is_told(tmp_path: Path) -> None:
    points = Points(tmp_path / "points")
    points.arm("before_publish", "delay", 1.0)
    assert (points.folder / "before_publish").read_text() == "delay 1.0"
    assert points.disarm() == ["before_publish"]
    assert points.hits() == []


def test_faults_account_for_as_many_agents_as_they_can_meet() -> None:
    hits = [Hit("before_publish", "kill", 1), Hit("before_publish", "delay", 1)]
    assert costs_of(["kill_worker", "roll_the_fleet", "kill_agent", "flush_redis"], hits) == {
        "worker_lost": 2 * SLOTS,
        "interrupted": len(WORKERS) * SLOTS,
        "failed": 1,
    }


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    report = Report(7, ("flush_redis",), (Hit("before_publish", "kill", 1),), 2, ("a complaint",), 70.5, 25.0)
    report.write(tmp_path / "7.json")
    assert Report.read(tmp_path / "7.json") == report


def test_a_seed_whose_driver_dies_has_failed_and_says_what_it_said() -> None:
    (report,) = run_side_by_side(["seven"], 2, None)
    assert "ended with" in report.complaints[0]
    assert "invalid int value" in report.complaints[-1]
