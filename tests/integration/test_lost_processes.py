"""A worker, a dispatcher or a message that is gone: the job goes on, and nothing runs twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from orchestrator.dispatch.steering import cancel_job
from orchestrator.state.log_chunks import decode_chunk
from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository, shell
from tests.support.services import PostgresService, RedisService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def test_work_of_a_killed_worker_goes_on_elsewhere_and_costs_no_retry(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    fleet.start_dispatcher()
    fleet.start_worker("doomed")
    command = (
        f'echo "$ORCHESTRATOR_ATTEMPT_NUMBER" >> {diary}; test $ORCHESTRATOR_ATTEMPT_NUMBER = 2 || sleep 60; echo x > x'
    )
    job_id = fleet.submit({"title": "Lost", "repo": str(repository), "max_retries": 0, "subtasks": [shell(1, command)]})
    wait_until(diary.exists, "the agent runs")
    fleet.stop("doomed", signal.SIGKILL)
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    assert [(row["status"], row["worker"]) for row in attempts] == [
        ("worker_lost", "doomed@test"),
        ("completed", "heir@test"),
    ]
    assert diary.read_text().split() == ["1", "2"]
    subtask = fleet.subtasks(job_id)[1]
    assert (subtask["failures"], subtask["redeliveries"]) == (0, 1)


def test_a_worker_that_is_asked_to_stop_gives_its_work_back_at_once(fleet: TestFleet, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    fleet.start_dispatcher()
    fleet.start_worker("leaving")
    command = f"echo x >> {diary}; test $(wc -l < {diary}) = 2 || sleep 60"
    job_id = fleet.submit({"title": "Stop", "max_retries": 0, "subtasks": [shell(1, command)]})
    wait_until(diary.exists, "the agent runs")
    fleet.stop("leaving", signal.SIGTERM)
    rows = fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job_id)
    assert [row["status"] for row in rows] == ["interrupted"], "recorded before the worker ended"
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert fleet.subtasks(job_id)[1]["failures"] == 0


def test_a_worker_that_is_asked_to_stop_lets_its_agents_end_within_the_drain(fleet: TestFleet, tmp_path: Path) -> None:
    """And takes nothing new: what is released meanwhile waits for another worker."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    fleet.start_dispatcher()
    leaving = fleet.start_worker("leaving", ORCHESTRATOR_DRAIN_SECONDS="600")
    subtasks = [shell(1, f"touch {begun}; until test -e {gate}; do sleep 0.1; done"), shell(2, "true", group=2)]
    job_id = fleet.submit({"title": "Drain", "subtasks": subtasks})
    wait_until(begun.exists, "the agent runs")
    leaving.send_signal(signal.SIGTERM)
    wait_until(lambda: "asked to stop" in (tmp_path / "leaving.log").read_text(), "the worker has heard")
    gate.touch()
    leaving.wait(timeout=30)
    assert fleet.subtasks(job_id)[1]["status"] == "completed"
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    rows = fleet.rows("SELECT subtask_id, status, worker FROM attempts WHERE job_id = :id ORDER BY id", id=job_id)
    assert [tuple(row.values()) for row in rows] == [(1, "completed", "leaving@test"), (2, "completed", "heir@test")]


def test_a_second_signal_cuts_the_drain_short(fleet: TestFleet, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    fleet.start_dispatcher()
    leaving = fleet.start_worker("leaving", ORCHESTRATOR_DRAIN_SECONDS="600")
    job_id = fleet.submit({"title": "Hurry", "subtasks": [shell(1, f"touch {begun}; sleep 600")]})
    wait_until(begun.exists, "the agent runs")
    leaving.send_signal(signal.SIGTERM)
    wait_until(lambda: "asked to stop" in (tmp_path / "leaving.log").read_text(), "the worker has heard")
    assert fleet.subtasks(job_id)[1]["status"] == "in_progress"
    fleet.stop("leaving", signal.SIGTERM)
    rows = fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job_id)
    assert [row["status"] for row in rows] == ["interrupted"]


def test_a_process_that_is_asked_again_while_it_hears_the_first_signal_ends_all_the_same(
    fleet: TestFleet, tmp_path: Path
) -> None:
    """The handlers of Celery lock each other out: one in two hundred that got two TERMs within a millisecond hung."""
    worker = fleet.start_worker()
    wait_until(lambda: "worker@test ready" in (tmp_path / "worker.log").read_text(), "the worker is ready")
    for _ in range(1000):  # hung Celery's own handlers in half of the runs
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.00005)
    assert worker.wait(timeout=30) == 0


def test_a_dispatcher_killed_in_a_merge_is_replaced(fleet: TestFleet, repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "checking"
    fleet.start_dispatcher("doomed")
    fleet.start_worker()
    check = f"test -e {mark} || {{ touch {mark}; sleep 60; }}"
    job_id = fleet.submit(
        {
            "title": "Merge",
            "repo": str(repository),
            "group_checks": check,
            "subtasks": [shell(1, "echo one > one"), shell(2, "echo two > two")],
        }
    )
    wait_until(mark.exists, "the group's check runs")
    fleet.stop("doomed", signal.SIGKILL)
    fleet.start_dispatcher("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    (run,) = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id", id=job_id)
    assert run["woken_by"] == "reconciler"
    assert git(repository, "log", "--format=%s", "--first-parent", f"orchestrator/{job_id}").splitlines()[:2] == [
        "Merge subtask 2: Step 2",
        "Merge subtask 1: Step 1",
    ]


def test_a_dispatcher_that_is_asked_to_stop_ends_a_merge_of_its_net(fleet: TestFleet, tmp_path: Path) -> None:
    """Its guard goes with it, and would kill the group's check, which would then be red: an agent paid for once more."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    fleet.start_dispatcher("doomed")
    fleet.start_worker()
    check = f"echo x >> {begun}; until test -e {gate}; do sleep 0.1; done"
    repository = new_repository(tmp_path / "repository")
    plan = {"title": "Leave", "repo": str(repository), "group_checks": check, "subtasks": [shell(1, "echo 1 > one")]}
    job_id = fleet.submit(plan)
    wait_until(begun.exists, "the group's check runs")
    fleet.stop("doomed", signal.SIGKILL)
    leaving = fleet.start_dispatcher("leaving")
    wait_until(lambda: begun.read_text() == "x\nx\n", "the check runs once more, for the net")
    leaving.send_signal(signal.SIGTERM)
    wait_until(lambda: "under way are ended first" in (tmp_path / "leaving.log").read_text(), "it waits for the merge")
    gate.touch()
    leaving.wait(timeout=30)
    assert fleet.job(job_id)["status"] == "completed"
    (run,) = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id", id=job_id)
    assert (run["success"], run["woken_by"]) == (True, "reconciler")
    assert len(fleet.rows("SELECT 1 FROM attempts WHERE job_id = :id", id=job_id)) == 1


def test_whatever_redis_forgets_the_job_finishes(fleet: TestFleet, redis_server: RedisService, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    fleet.start_dispatcher()
    fleet.start_worker()
    wait_for_gate = f"until test -e {gate}; do sleep 0.1; done"
    job_id = fleet.submit({"title": "Flush", "subtasks": [shell(1, wait_for_gate), shell(2, "true", group=2)]})
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "in_progress", "the agent runs")
    redis_server.flush()
    gate.touch()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    runs = fleet.rows("SELECT woken_by FROM group_runs WHERE job_id = :id ORDER BY group_number", id=job_id)
    assert runs[0]["woken_by"] == "reconciler"


def test_finished_work_waits_for_the_database_and_is_recorded_once(
    fleet: TestFleet, postgres: PostgresService, tmp_path: Path
) -> None:
    gate, diary = tmp_path / "gate", tmp_path / "diary"
    fleet.start_dispatcher()
    fleet.start_worker()
    command = f"echo begun; touch {tmp_path}/begun; until test -e {gate}; do sleep 0.1; done; echo ran >> {diary}"
    job_id = fleet.submit({"title": "Outage", "subtasks": [shell(1, command)]})
    wait_until((tmp_path / "begun").exists, "the agent runs")
    postgres.stop()
    gate.touch()
    wait_until(diary.exists, "the agent has ended")
    postgres.start()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert diary.read_text() == "ran\n"
    assert len(fleet.rows("SELECT 1 FROM attempts WHERE job_id = :id", id=job_id)) == 1


def test_an_attempt_waits_for_a_remote_that_is_away_when_it_begins(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    """It is nobody's failure: with no retry to spend, the job completes when the remote is back."""
    fleet.start_dispatcher()
    job_id = fleet.submit(
        {"title": "Away", "repo": str(repository), "max_retries": 0, "subtasks": [shell(1, "echo one > one")]}
    )
    hidden = repository.rename(tmp_path / "hidden")
    fleet.start_worker()
    wait_until(lambda: "Trying again" in _log_of(fleet, job_id), "the attempt has met the absence", timeout_seconds=60)
    hidden.rename(repository)
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    (attempt,) = fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job_id)
    assert attempt["status"] == "completed"


def test_an_attempt_that_waits_for_its_remote_hears_of_a_cancellation(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    fleet.start_dispatcher()
    job_id = fleet.submit({"title": "Away", "repo": str(repository), "subtasks": [shell(1, "echo one > one")]})
    repository.rename(tmp_path / "hidden")
    fleet.start_worker()
    wait_until(lambda: "Trying again" in _log_of(fleet, job_id), "the attempt has met the absence", timeout_seconds=60)
    cancel_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id)["status"] == "cancelled"
    assert fleet.subtasks(job_id)[1]["status"] == "cancelled"


def _log_of(fleet: TestFleet, job_id: str) -> str:
    chunks = fleet.rows("SELECT content FROM log_chunks WHERE job_id = :id ORDER BY sequence", id=job_id)
    return "\n".join(line.text for chunk in chunks for line in decode_chunk(chunk["content"]))
