"""What a report counts, and how it lays out time."""

from __future__ import annotations

import pytest

from orchestrator.cli.report_figures import (
    busy_spans,
    lanes_by_worker,
    shortened_pauses,
    time_scale,
    totals,
    without_figures,
)
from orchestrator.ledger import NOTHING_TOLD, Spending
from tests.support.job_views import a_group, a_history, a_job, a_record, a_run, a_subtask


def test_totals_count_work_once_and_time_as_it_passed() -> None:
    conflict = {"subtask_id": 2, "other_subtask_ids": [1], "files": []}
    group = a_group(
        1,
        "failed",
        a_subtask(1, "completed"),
        a_subtask(2, "failed"),
        runs=(a_run(start=20, end=10, success=False, conflicts=[conflict]),),
    )
    history = a_history(
        a_job(group, status="failed"),
        a_record(1, start=20, end=10, files_changed=("a.py", "b.py"), usage={"input": 5, "note": "x"}, cost_usd=0.5),
        a_record(2, 1, start=20, end=15, status="timeout", files_changed=("c.py",)),
        a_record(2, 2, start=15, end=10, worker="worker-2@host", files_changed=("b.py",), usage={"input": 7}),
    )
    sums = totals(history)
    assert (sums.subtasks, sums.attempts, sums.repeated_attempts) == ({"completed": 1, "failed": 1}, 3, 1)
    assert (sums.workers, sums.conflicts, sums.files_changed) == (2, 1, 2)
    assert (sums.spent.tokens, sums.spent.cost_usd) == (12, 0.5)
    assert sums.wall_seconds == pytest.approx(10)
    assert sums.agent_seconds == pytest.approx(16)
    assert sums.completed_agent_seconds == pytest.approx(12)
    assert sums.speedup_factor == pytest.approx(1.2)


def test_a_job_that_has_not_begun_has_no_figures() -> None:
    sums = totals(a_history(a_job(a_group(1, "pending", a_subtask(1)), status="pending", started_at=None)))
    assert (sums.attempts, sums.wall_seconds, sums.speedup_factor, sums.spent) == (0, 0, None, NOTHING_TOLD)


def test_what_is_missing_in_a_sum_is_said() -> None:
    told = a_record(1, usage={"input_tokens": 5}, cost_usd=0.5)
    job = a_job(a_group(1, "completed", a_subtask(1, "completed", spent=Spending({"input_tokens": 5}, 0.5))))
    assert without_figures(a_history(job, told)) == []
    priceless = a_record(2, usage={"input_tokens": 5}, model="gpt-x", cost_unknown=True)
    nameless = a_record(3, usage={"input_tokens": 5}, cost_unknown=True)
    lost = a_record(4, status="worker_lost", cost_unknown=True)
    assert without_figures(a_history(job, told, priceless, nameless, lost)) == [
        "no price is known for a model that nobody names, gpt-x: its tokens are counted without their cost",
        "1 attempt ended without telling what it had used",
    ]
    assert without_figures(a_history(a_job(), lost)) == [], "nothing was told at all, so nothing is shown"


def test_time_in_which_nothing_ran_does_not_count() -> None:
    day = 86_400.0
    first = a_group(1, "failed", a_subtask(1), runs=(a_run(1, start=day + 20, end=day + 10), a_run(2, start=10, end=0)))
    history = a_history(
        a_job(first, started_at=a_run(start=day + 20).started_at, status="completed"),
        a_record(1, 1, start=day + 20, end=day + 10, status="failed"),
        a_record(1, 2, start=10, end=0),
    )
    spans = busy_spans(history)
    assert [tuple(round(second) for second in span) for span in spans] == [(0, 10), (day + 10, day + 20)]
    assert [tuple(round(second) for second in pause) for pause in shortened_pauses(spans)] == [(10, day + 10)]
    scale = time_scale(spans)
    # Two spans of work with a tenth of both between them: each takes ten parts of twenty-two.
    positions = [scale(second) for second in (0, 5, 10, day + 10, day + 20, day + 99)]
    assert positions == pytest.approx([0, 5 / 22, 10 / 22, 12 / 22, 1, 1])


def test_attempts_that_overlap_never_share_a_lane() -> None:
    attempts = [
        a_record(1, start=10, end=6),
        a_record(2, start=9, end=3),
        a_record(3, start=6, end=1),
        a_record(4, start=2, end=None),
        a_record(5, start=1, end=None, worker="worker-0@host"),
    ]
    lanes = lanes_by_worker(attempts)
    assert {worker: [[one.subtask_id for one in lane] for lane in of] for worker, of in lanes.items()} == {
        "worker-1@host": [[1, 3], [2, 4]],
        "worker-0@host": [[5]],
    }
