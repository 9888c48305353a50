"""A merge comes to its end whatever git, a check or an agent have said, and whatever happens beside it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.group_work import claim_group_work
from orchestrator.dispatch.merging import merge_group
from orchestrator.dispatch.steering import end_job
from orchestrator.outcomes import Outcome
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.state.transitions import claims, groups, jobs
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import StopSignal
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import new_repository, shell
from tests.support.waiting import wait_until
from workers.recording import Recorder, record

pytestmark = pytest.mark.stack


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_check_may_print_what_no_database_takes(fleet: TestFleet, repository: Path, exit_code: int) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    plan = {
        "title": "NUL",
        "repo": str(repository),
        "max_retries": 1,
        "group_checks": f"printf 'one\\0two'; exit {exit_code}",
        "subtasks": [shell(1, "echo $ORCHESTRATOR_ATTEMPT_NUMBER > one")],
    }
    job = fleet.wait_for_end(fleet.submit(plan), timeout_seconds=30)
    assert (job["status"], job["reason"]) == (("completed", None) if exit_code == 0 else ("failed", "group_check"))
    runs = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id ORDER BY id", id=job["id"])
    assert [run["execution_metadata"]["check"]["output"] for run in runs] == ["one\N{REPLACEMENT CHARACTER}two\n"] * (
        1 + exit_code
    )


def test_no_merge_begins_between_a_cancellations_looks(fleet: TestFleet) -> None:
    """The statements of a cancellation, in their order: a merge that began behind the first of them would go on in a job
    that is final, and nobody would end its group if its dispatcher died."""
    job_id = fleet.submit({"title": "Race", "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    end_all(fleet, job_id)
    merge = threading.Thread(target=merge_group, args=(fleet.client, job_id, 1), kwargs={"woken_by": "callback"})
    with fleet.client.engine.begin() as connection:
        jobs.lock_job(connection, job_id)
        jobs.request_end(connection, job_id, "cancelled")
        jobs.finish_job(connection, job_id, "cancelled", "cancelled", "the job was cancelled")
        merge.start()
        wait_until(lambda: merge_waits(fleet) or group_of(fleet, job_id)["status"] == "merging", "the merge has begun")
        groups.end_groups(connection, job_id, "cancelled", "the job was cancelled")
    merge.join()
    assert (fleet.job(job_id)["status"], group_of(fleet, job_id)["status"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
def test_a_job_ends_though_its_dispatcher_died_in_a_merge(fleet: TestFleet, reason: str) -> None:
    """Nobody begins the merge of a job that is to end again, so nobody may wait for it either."""
    job_id = fleet.submit({"title": "Dead", "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    end_all(fleet, job_id)
    assert claim_group_work(fleet.client.engine, job_id, 1, lease_seconds=60.0, woken_by="callback")
    end_job(fleet.client, job_id, reason)
    reconciler = Reconciler(fleet.client)
    reconciler.tick()
    assert group_of(fleet, job_id)["status"] == "merging", "it has its time"
    with fleet.client.engine.begin() as connection:
        connection.execute(text("UPDATE groups SET merge_lease_expires_at = clock_timestamp()"))
    reconciler.tick()
    job = fleet.job(job_id)
    assert (job["status"], job["reason"]) == ("cancelled" if reason == "cancelled" else "failed", reason)
    assert group_of(fleet, job_id)["status"] == "cancelled"
    reconciler.stop()


def test_a_merge_that_can_never_be_made_says_why_and_ends_the_job(database: str, broker: str, tmp_path: Path) -> None:
    """A dispatcher's disk, here: nothing that git or a check could say."""
    (tmp_path / "file").touch()
    fleet = open_fleet(database, broker, tmp_path, unreachable_grace_seconds=1.0)
    try:
        fleet.start_dispatcher(ORCHESTRATOR_WORK_DIR=str(tmp_path / "file" / "folder"))
        fleet.start_worker()
        plan = {
            "title": "No room",
            "repo": str(new_repository(tmp_path / "repository")),
            "subtasks": [shell(1, "echo one > one")],
        }
        job = fleet.wait_for_end(fleet.submit(plan))
        assert (job["status"], job["reason"]) == ("failed", "merge_failed")
        assert str(tmp_path / "file") in job["error"]
    finally:
        fleet.close()


def test_a_merges_patience_begins_with_its_first_trouble(fleet: TestFleet, repository: Path) -> None:
    """Not when its last subtask ended: dispatchers may have been away for a day, and the remote for a second."""
    fleet.start_worker()
    plan = {"title": "Late", "repo": str(repository), "subtasks": [shell(1, "echo one > one")]}
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "completed", "the work is done")
    with fleet.client.engine.begin() as connection:
        connection.execute(text("UPDATE subtasks SET finished_at = finished_at - interval '1 day'"))
    hidden = repository.rename(repository.with_name("hidden"))
    merge_group(fleet.client, job_id, 1, woken_by="reconciler")
    assert group_of(fleet, job_id)["status"] == "running", group_of(fleet, job_id)["error"]
    hidden.rename(repository)
    merge_group(fleet.client, job_id, 1, woken_by="reconciler")
    assert fleet.job(job_id)["status"] == "completed"


def test_no_number_of_a_program_keeps_a_group_from_being_merged(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Tokens", "subtasks": [shell(1, "true"), shell(2, "true")]})
    start_job(fleet.client, job_id)
    end_all(fleet, job_id, usage={"input_tokens": 10**40, "output_tokens": 1})
    merge_group(fleet.client, job_id, 1, woken_by="callback")
    (run,) = fleet.rows("SELECT total_token_usage FROM group_runs WHERE job_id = :id", id=job_id)
    assert fleet.job(job_id)["status"] == "completed"
    assert run["total_token_usage"] == 2 * 10**14, "as much as counts"


def end_all(fleet: TestFleet, job_id: str, **figures: Any) -> None:
    """Every subtask of the group is claimed and completes, by the hand of no worker."""
    recorder = Recorder(fleet.client)
    wanted = [claims.Wanted(number, None, f"token-{number}") for number in fleet.subtasks(job_id)]
    for claim in claims.claim(fleet.client.engine, job_id, wanted, worker="worker@test", lease_seconds=60.0):
        assert claim is not None
        with StopSignal() as stop:
            assert record(recorder, claim, AttemptEnd(Outcome.COMPLETED, **figures), stop)


def group_of(fleet: TestFleet, job_id: str) -> dict[str, Any]:
    (group,) = fleet.rows("SELECT * FROM groups WHERE job_id = :id", id=job_id)
    return group


def merge_waits(fleet: TestFleet) -> bool:
    """Whether somebody waits for a lock of a row or of its transaction."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(fleet.rows(waits))
