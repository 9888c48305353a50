"""What waits for what, and what events say."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.cli.describe import event_words, group_words, status_words, waits_for
from orchestrator.state.views import EventView
from tests.support.job_views import NOW, a_group, a_job, a_subtask, ago


def test_a_subtask_says_what_it_waits_for() -> None:
    waiting = a_subtask(1)
    group = a_group(1, "running", a_subtask(2, "in_progress"), waiting)
    job = a_job(group, max_parallel_agents=1)
    assert waits_for(job, group, waiting) == "waits for a free place (1 of 1 taken)"
    assert waits_for(job, group, group.subtasks[0]) == ""


def test_a_back_off_says_when_it_ends() -> None:
    subtask = a_subtask(1, not_before=NOW + timedelta(seconds=12))
    group = a_group(1, "running", subtask)
    assert waits_for(a_job(group), group, subtask) == "retry in 12 s"


def test_a_missing_worker_is_noticed_after_a_while() -> None:
    fresh, old = a_subtask(1, released_at=ago(1)), a_subtask(2, released_at=ago(34), requires=("gpu", "large"))
    group = a_group(1, "running", fresh, old)
    assert waits_for(a_job(group), group, fresh) == "waits for a worker"
    assert waits_for(a_job(group), group, old) == (
        "waits for a worker that offers gpu, large: none has taken it for 34 s"
    )


def test_groups_wait_for_the_one_before_them() -> None:
    first, second, third = a_group(1, "completed"), a_group(2, "running"), a_group(3, "pending", a_subtask(3))
    job = a_job(first, second, third)
    assert group_words(job, third) == "waits for group 2"
    assert waits_for(job, third, third.subtasks[0]) == "waits for group 2"
    assert group_words(a_job(third, status="pending"), third) == "waits for a dispatcher"


def test_a_cancelled_job_promises_nothing() -> None:
    group = a_group(1, "pending", a_subtask(1))
    job = a_job(group, cancel_requested_at=NOW, reason="cancelled")
    assert status_words(job) == "running, ending (cancelled)"
    assert group_words(job, group) == "will not start"
    assert waits_for(job, group, group.subtasks[0]) == "is being cancelled"


def test_a_paused_job_says_so_and_what_waits_for_it() -> None:
    group = a_group(1, "running", a_subtask(1))
    job = a_job(group, paused_at=NOW)
    assert status_words(job) == "running, paused"
    assert waits_for(job, group, group.subtasks[0]) == "waits: the job is paused"


def test_the_status_names_the_reason_once() -> None:
    assert status_words(a_job(status="failed", reason="subtasks_failed")) == "failed: subtasks_failed"
    assert status_words(a_job(status="cancelled", reason="cancelled")) == "cancelled"


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("job.started", {}, "job 3f2a9c1b04d7 starts: Bookstore models"),
        ("job.finished", {"data": {"status": "failed", "error": "no\nluck"}}, "job failed: no luck"),
        ("job.paused", {}, "the job is paused: no new agent starts"),
        ("job.resumed", {}, "the job goes on"),
        ("group.started", {"group_number": 2, "data": {"subtask_ids": [1]}}, "group 2 starts with 1 agent"),
        (
            "attempt.started",
            {"subtask_id": 1, "attempt": 2, "data": {"worker": "w@h"}},
            "#1 Part 1 starts on w@h, attempt 2",
        ),
        (
            "attempt.resumed",
            {"subtask_id": 1, "attempt": 2, "data": {"resumed_from": 1}},
            "#1 Part 1 goes on where attempt 1 was cut off",
        ),
        ("attempt.finished", {"subtask_id": 1, "data": {"outcome": "completed"}}, "#1 Part 1 completed"),
        (
            "attempt.finished",
            {"subtask_id": 1, "data": {"outcome": "timeout", "error": "too slow", "retry_after_seconds": 2.0}},
            "#1 Part 1 timeout: too slow; tried again in 2.0 s",
        ),
        (
            "attempt.finished",
            {"subtask_id": 1, "data": {"outcome": "worker_lost", "retry_after_seconds": 0.0}},
            "#1 Part 1 worker_lost: tried again at once",
        ),
        ("subtasks.skipped", {"data": {"subtask_ids": [3, 4], "error": "no"}}, "skipped: #3, #4: no"),
        ("something.new", {}, None),
    ],
)
def test_events_in_words(name: str, fields: dict[str, object], words: str | None) -> None:
    values = {"group_number": None, "subtask_id": None, "attempt": None, **fields}
    event = EventView(id=1, at=NOW, name=name, **values)  # type: ignore[arg-type]
    assert event_words(a_job(a_group(1, "running", a_subtask(1))), event) == words
