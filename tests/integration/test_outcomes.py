"""How attempts end, what follows, and what a job then is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.dispatch.steering import cancel_job, retry_job
from orchestrator.dispatch.submission import submit
from orchestrator.errors import IllegalRequest
from orchestrator.plan.validate import validate_plan
from tests.support.fleet import TestFleet
from tests.support.processes import processes_with
from tests.support.repositories import git, new_repository, refuse_pushes, shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    return shared_fleet


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def attempts_of(fleet: TestFleet, job_id: str) -> list[dict[str, Any]]:
    return fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY subtask_id, number", id=job_id)


def statuses_of(fleet: TestFleet, job_id: str) -> dict[int, str]:
    return {subtask_id: row["status"] for subtask_id, row in fleet.subtasks(job_id).items()}


def test_a_timeout_ends_the_whole_tree_and_is_the_subtasks_status(fleet: TestFleet) -> None:
    sleeper = "sleep 987.6501"
    job_id = fleet.submit(
        {
            "title": "Too slow",
            "max_retries": 0,
            "subtasks": [shell(1, f"(setsid {sleeper} &) ; {sleeper}", timeout="1s")],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "subtasks_failed")
    assert statuses_of(fleet, job_id) == {1: "timeout"}
    assert attempts_of(fleet, job_id)[0]["status"] == "timeout"
    assert processes_with(sleeper) == []


def test_an_agent_that_falls_silent_is_ended(fleet: TestFleet) -> None:
    job_id = fleet.submit(
        {"title": "Silent", "max_retries": 0, "subtasks": [shell(1, "echo hi; sleep 987.6502", idle_timeout="1s")]}
    )
    fleet.wait_for_end(job_id)
    assert attempts_of(fleet, job_id)[0]["status"] == "idle_timeout"
    assert statuses_of(fleet, job_id) == {1: "timeout"}


def test_a_repository_that_refuses_the_work_costs_no_second_agent(fleet: TestFleet, repository: Path) -> None:
    refuse_pushes(repository, "No refs of yours here.")
    job_id = fleet.submit({"title": "Refused", "repo": str(repository), "subtasks": [shell(1, "echo one > file")]})
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    (attempt,) = attempts_of(fleet, job_id)
    assert attempt["status"] == "bad_config"
    assert "[remote rejected] (pre-receive hook declined): No refs of yours here." in attempt["error"]
    cache = attempt["error"].rstrip(".").split(" in ")[-1]
    assert git(Path(cache), "show", f"refs/orchestrator/{job_id}/1/1:file") == "one\n"


@pytest.mark.parametrize(
    "end", [{"fail": "no"}, {"hang": True}, {"end": "turn_limit"}, {"end": "budget_exceeded"}, {"end": "rate_limited"}]
)
def test_the_work_of_an_unhappy_end_is_pushed_as_well(fleet: TestFleet, repository: Path, end: dict[str, Any]) -> None:
    agent = {"name": "scripted", "script": [{"write": "paid-for", "content": "x\n"}, end]}
    subtask = {"subtask_id": 1, "title": "Part", "parallel_group": 1, "agent": agent, "timeout": "1s"}
    job_id = fleet.submit(
        {"title": "Unhappy", "repo": str(repository), "retry_failed_agents": False, "subtasks": [subtask]}
    )
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    (attempt,) = attempts_of(fleet, job_id)
    assert attempt["ref"] == f"refs/orchestrator/{job_id}/1/1"
    assert git(repository, "show", f"{attempt['ref']}:paid-for") == "x\n"
    assert attempt["files_changed"] == ["paid-for"]


def test_a_remote_that_refuses_once_in_passing_costs_nothing(fleet: TestFleet, repository: Path) -> None:
    hook = refuse_pushes(repository)
    hook.write_text("#!/bin/sh\n[ -e seen ] || { touch seen; exit 1; }\n")
    job_id = fleet.submit({"title": "Passing", "repo": str(repository), "subtasks": [shell(1, "echo one > file")]})
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert [attempt["status"] for attempt in attempts_of(fleet, job_id)] == ["completed"]


def test_a_change_that_was_required_and_is_missing_is_no_success(fleet: TestFleet, repository: Path) -> None:
    job_id = fleet.submit(
        {
            "title": "Nothing",
            "repo": str(repository),
            "max_retries": 1,
            "subtasks": [shell(1, "true", expect_changes=True), shell(2, "true")],
        }
    )
    fleet.wait_for_end(job_id)
    assert statuses_of(fleet, job_id) == {1: "failed", 2: "completed"}
    outcomes = [row["status"] for row in attempts_of(fleet, job_id)]
    assert outcomes == ["no_changes", "no_changes", "completed"]


def test_an_agent_whose_program_is_missing_fails_at_once_and_says_so(fleet: TestFleet) -> None:
    job_id = fleet.submit(
        {
            "title": "Missing",
            "subtasks": [
                {"subtask_id": 1, "title": "x", "agent": {"name": "claude-code", "path": "/nowhere/claude"}},
            ],
        }
    )
    fleet.wait_for_end(job_id)
    (attempt,) = attempts_of(fleet, job_id)
    assert attempt["status"] == "agent_missing"
    assert "/nowhere/claude" in attempt["error"]


def test_without_a_repository_agents_work_in_empty_folders_and_nothing_is_merged(fleet: TestFleet) -> None:
    job_id = fleet.submit(
        {
            "title": "No repository",
            "subtasks": [shell(1, "ls -A | wc -l; echo x > y"), shell(2, "ls -A | wc -l", group=2)],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert [row["result"] for row in fleet.subtasks(job_id).values()] == ["0", "0"]
    assert fleet.job(job_id)["branch"] is None


def test_output_that_no_database_takes_as_it_is_gets_recorded(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Bytes", "max_retries": 0, "subtasks": [shell(1, r"printf 'a\0b\377c\n'; exit 3")]})
    fleet.wait_for_end(job_id)
    (attempt,) = attempts_of(fleet, job_id)
    assert attempt["exit_code"] == 3
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c" in attempt["error"]


def test_continue_runs_later_groups_skips_dependents_and_still_ends_as_failed(fleet: TestFleet) -> None:
    job_id = fleet.submit(
        {
            "title": "Continue",
            "on_failure": "continue",
            "max_retries": 0,
            "subtasks": [
                shell(1, "false"),
                shell(2, "true"),
                shell(3, "true", group=2, depends_on=[1]),
                shell(4, "true", group=2, depends_on=[2]),
            ],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "subtasks_failed")
    assert statuses_of(fleet, job_id) == {1: "failed", 2: "completed", 3: "skipped", 4: "completed"}
    assert "#1" in fleet.subtasks(job_id)[3]["error"]


def test_a_quorum_is_enough(fleet: TestFleet) -> None:
    job_id = fleet.submit(
        {
            "title": "Quorum",
            "on_failure": {"quorum": 2},
            "max_retries": 0,
            "subtasks": [shell(1, "false"), shell(2, "true"), shell(3, "true"), shell(4, "true", group=2)],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("completed", "quorum")
    assert statuses_of(fleet, job_id)[4] == "completed"


def test_cancel_ends_running_agents_and_what_was_not_started_never_starts(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    sleeper = "sleep 987.6503"
    diary = tmp_path / "diary"
    job_id = fleet.submit(
        {
            "title": "Cancel",
            "repo": str(repository),
            "max_parallel_agents": 2,
            "subtasks": [shell(n, f"echo {n} >> {diary}; setsid --wait {sleeper}") for n in range(1, 6)],
        }
    )
    wait_until(lambda: diary.exists() and len(diary.read_text().split()) == 2, "two agents run")
    assert cancel_job(fleet.client, job_id)
    assert not cancel_job(fleet.client, job_id), "it ends already"
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("cancelled", "cancelled")
    assert set(statuses_of(fleet, job_id).values()) == {"cancelled"}
    assert [row["status"] for row in attempts_of(fleet, job_id)] == ["cancelled", "cancelled"]
    assert processes_with(sleeper) == []
    assert len(diary.read_text().split()) == 2


def test_a_deadline_ends_the_job_as_failed(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Late", "deadline": "1s", "subtasks": [shell(1, "sleep 987.6504")]})
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "deadline")
    assert processes_with("sleep 987.6504") == []


def test_retry_runs_the_failed_ones_only_and_merges_onto_the_same_branch(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    diary, gate = tmp_path / "diary", tmp_path / "gate"
    job_id = fleet.submit(
        {
            "title": "Again",
            "repo": str(repository),
            "max_retries": 0,
            "subtasks": [
                shell(1, f"echo 1 >> {diary}; echo one > one.txt"),
                shell(2, f"echo 2 >> {diary}; test -e {gate}; echo two > two.txt"),
                shell(3, f"echo 3 >> {diary}; cat one.txt two.txt > three.txt", group=2),
            ],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    assert statuses_of(fleet, job_id) == {1: "completed", 2: "failed", 3: "skipped"}
    ended_at = fleet.job(job_id)["finished_at"]
    gate.touch()
    assert retry_job(fleet.client, job_id) == (2, 3)
    with pytest.raises(IllegalRequest):
        retry_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert fleet.job(job_id)["started_at"] > ended_at, "the time that it took is that of its last run"
    assert sorted(diary.read_text().split()) == ["1", "2", "2", "3"]
    assert git(repository, "show", f"orchestrator/{job_id}:three.txt") == "one\ntwo\n"
    assert retry_job(fleet.client, job_id) == (), "nothing is left to try"


def test_each_retry_has_the_whole_deadline_of_the_plan(fleet: TestFleet) -> None:
    job_id = fleet.submit({"title": "Late", "deadline": "90s", "max_retries": 0, "subtasks": [shell(1, "false")]})
    for _ in range(3):
        assert fleet.wait_for_end(job_id)["reason"] == "subtasks_failed"
        assert retry_job(fleet.client, job_id) == (1,)
        job = fleet.job(job_id)
        assert (job["deadline_at"] - job["started_at"]).total_seconds() == pytest.approx(90, abs=1)
    fleet.wait_for_end(job_id)


def test_one_idempotency_key_is_one_job_however_many_submit_it_at_once(fleet: TestFleet) -> None:
    plan = validate_plan({"title": "Once", "subtasks": [shell(1, "true")]}, known_agents={"shell"})
    other = validate_plan({"title": "Other", "subtasks": [shell(1, "true")]}, known_agents={"shell"})
    answers = []

    def ask() -> None:
        answers.append(submit(fleet.client, plan, idempotency_key="nightly"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.job_id for answer in answers}) == 1
    assert sorted(answer.created for answer in answers) == [False, False, False, True]
    with pytest.raises(IllegalRequest, match="nightly"):
        submit(fleet.client, other, idempotency_key="nightly")


def test_a_message_that_comes_twice_or_late_runs_nothing_again(fleet: TestFleet, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    job_id = fleet.submit({"title": "Copies", "subtasks": [shell(1, f"echo ran >> {diary}; sleep 0.5")]})
    for _ in range(5):
        fleet.client.app.send_task("orchestrator.run_agent", args=(job_id, 1), queue="agents", ignore_result=True)
        fleet.client.app.send_task("orchestrator.merge_group", args=(job_id, 1), queue="control", ignore_result=True)
        fleet.client.app.send_task("orchestrator.start_job", args=(job_id,), queue="control", ignore_result=True)
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    fleet.client.app.send_task("orchestrator.run_agent", args=(job_id, 1), queue="agents", ignore_result=True)
    after = fleet.submit({"title": "After", "subtasks": [shell(1, "true")]})
    fleet.wait_for_end(after)
    assert diary.read_text() == "ran\n"
    assert len(fleet.rows("SELECT 1 FROM group_runs WHERE job_id = :id", id=job_id)) == 1


def test_a_message_of_an_earlier_group_run_does_not_take_the_place_of_the_new_one(
    fleet: TestFleet, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = fleet.submit({"title": "Stale", "max_retries": 0, "subtasks": [shell(1, f"test -e {gate}")]})
    fleet.wait_for_end(job_id)
    (old,) = fleet.rows("SELECT chord_id FROM group_runs WHERE job_id = :id", id=job_id)
    gate.touch()
    retry_job(fleet.client, job_id)
    for _ in range(20):
        fleet.client.app.send_task(
            "orchestrator.run_agent", args=(job_id, 1), queue="agents", group_id=old["chord_id"], ignore_result=True
        )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    runs = fleet.rows("SELECT woken_by FROM group_runs WHERE job_id = :id ORDER BY number", id=job_id)
    assert [run["woken_by"] for run in runs] == ["callback", "callback"]
