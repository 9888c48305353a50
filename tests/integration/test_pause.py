"""A paused job starts nothing, ends what runs, and goes on at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.dispatch.steering import cancel_job, pause_job, resume_job, retry_job
from orchestrator.errors import IllegalRequest
from orchestrator.state.transitions import claims
from tests.support.fleet import TestFleet
from tests.support.repositories import shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    return shared_fleet


def claim(fleet: TestFleet, job_id: str, subtask_id: int) -> object:
    """What a worker gets that has just received a message for the subtask, however old."""
    (claimed,) = claims.claim(
        fleet.client.engine,
        job_id,
        [claims.Wanted(subtask_id, None, "late")],
        worker="late@test",
        lease_seconds=30,
    )
    return claimed


def test_a_running_agent_ends_and_the_next_one_waits_for_resume(fleet: TestFleet, tmp_path: Path) -> None:
    gate, diary = tmp_path / "gate", tmp_path / "diary"
    slow = f"until test -e {gate}; do sleep 0.05; done; echo 1 >> {diary}"
    job_id = fleet.submit(
        {
            "title": "Pause",
            "max_parallel_agents": 1,
            "subtasks": [shell(1, slow, estimated_duration_minutes=9), shell(2, f"echo 2 >> {diary}")],
        }
    )
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "in_progress", "the first agent runs")
    assert pause_job(fleet.client, job_id)
    assert not pause_job(fleet.client, job_id), "paused already"
    gate.touch()
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "completed", "the first agent has ended")
    second = fleet.subtasks(job_id)[2]
    assert (second["status"], second["released_at"]) == ("pending", None), "its place was free and is not given away"
    assert claim(fleet, job_id, 2) is None
    assert resume_job(fleet.client, job_id)
    assert not resume_job(fleet.client, job_id), "not paused any more"
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert diary.read_text().split() == ["1", "2"]
    (run,) = fleet.rows("SELECT woken_by FROM group_runs WHERE job_id = :id", id=job_id)
    assert run["woken_by"] == "callback"
    names = [row["name"] for row in fleet.rows("SELECT name FROM events WHERE job_id = :id ORDER BY id", id=job_id)]
    assert [name for name in names if name in ("job.paused", "job.resumed")] == ["job.paused", "job.resumed"]


def test_a_group_that_is_complete_is_merged_and_the_next_one_waits(fleet: TestFleet, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = f"until test -e {gate}; do sleep 0.05; done"
    job_id = fleet.submit({"title": "Pause", "subtasks": [shell(1, slow), shell(2, "true", group=2)]})
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "in_progress", "the agent runs")
    pause_job(fleet.client, job_id)
    gate.touch()

    def statuses() -> list[str]:
        rows = fleet.rows("SELECT status FROM groups WHERE job_id = :id ORDER BY number", id=job_id)
        return [row["status"] for row in rows]

    wait_until(lambda: statuses() == ["completed", "running"], "the second group is dispatched")
    second = fleet.subtasks(job_id)[2]
    assert (second["status"], second["released_at"]) == ("pending", None)
    assert "running, paused" in fleet.program("status", job_id).stdout
    assert "paused" in fleet.program("list").stdout
    resume_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id)["status"] == "completed"


def test_what_nobody_has_claimed_loses_its_place_and_gets_it_back(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Pause", "subtasks": [shell(1, "true", requires=["nobody-offers-this"])]})
    wait_until(lambda: fleet.subtasks(job_id) and fleet.subtasks(job_id)[1]["released_at"], "the subtask is released")
    pause_job(fleet.client, job_id)
    owed = "SELECT due_at FROM outbox WHERE job_id = :id AND subtask_id = 1"
    assert fleet.subtasks(job_id)[1]["released_at"] is None
    assert fleet.rows(owed, id=job_id) == [{"due_at": None}], "nothing is sent while it is paused"
    assert claim(fleet, job_id, 1) is None, "a message that is under way comes too late"
    resume_job(fleet.client, job_id)
    assert fleet.subtasks(job_id)[1]["released_at"] is not None
    assert fleet.rows(owed, id=job_id)[0]["due_at"] is not None
    assert claim(fleet, job_id, 1) is not None
    cancel_job(fleet.client, job_id)


def test_a_job_that_ended_while_it_was_paused_runs_again_after_a_retry(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Pause", "subtasks": [shell(1, "true", requires=["nobody-offers-this"])]})
    pause_job(fleet.client, job_id)
    assert fleet.job(job_id)["finished_at"] is None
    cancel_job(fleet.client, job_id)
    fleet.wait_for_end(job_id)
    for steer in (pause_job, resume_job):
        with pytest.raises(IllegalRequest, match="is cancelled: it can't be"):
            steer(fleet.client, job_id)
    retry_job(fleet.client, job_id)
    wait_until(lambda: fleet.subtasks(job_id)[1]["released_at"], "the subtask is released")
    cancel_job(fleet.client, job_id)


def test_the_commands_say_what_they_did(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Pause", "subtasks": [shell(1, "true", requires=["nobody-offers-this"])]})
    wait_until(lambda: fleet.job(job_id)["status"] == "running", "the job runs")
    first, again = fleet.program("pause", job_id[:8]), fleet.program("pause", job_id, "--json")
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == f"Job {job_id} is paused. Go on with: orchestrator resume {job_id}\n"
    assert '"paused": false' in again.stdout
    went_on, nothing = fleet.program("resume", job_id, "--json"), fleet.program("resume", job_id)
    assert '"resumed": true' in went_on.stdout
    assert nothing.stdout == f"Job {job_id} is not paused.\n"
    cancel_job(fleet.client, job_id)
    fleet.wait_for_end(job_id)
    refused = fleet.program("pause", job_id)
    assert refused.returncode == 2
    assert refused.stderr == f"error: Job {job_id} is cancelled: it can't be paused.\n"
