"""The main job through a real queue: dispatcher and workers are processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository, shell

pytestmark = pytest.mark.stack


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    return shared_fleet


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def test_two_groups_are_merged_one_after_the_other(fleet: TestFleet, repository: Path) -> None:
    job_id = fleet.submit(
        {
            "title": "Two groups",
            "repo": str(repository),
            "subtasks": [
                shell(1, "echo one > one.txt"),
                shell(2, "echo two > two.txt"),
                shell(3, "cat one.txt two.txt > both.txt; echo done", group=2),
            ],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"], job["error"]) == ("completed", None, None)
    assert git(repository, "show", f"orchestrator/{job_id}:both.txt") == "one\ntwo\n"
    runs = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id ORDER BY group_number", id=job_id)
    assert [run["woken_by"] for run in runs] == ["callback", "callback"]
    assert [run["success"] for run in runs] == [True, True]
    groups = fleet.rows("SELECT * FROM groups WHERE job_id = :id ORDER BY number", id=job_id)
    for group, run in zip(groups, runs, strict=True):
        assert group["started_at"] <= run["started_at"] < run["completed_at"] <= group["finished_at"]
    assert fleet.subtasks(job_id)[3]["result"] == "done"
    assert fleet.rows("SELECT * FROM outbox WHERE job_id = :id", id=job_id) == []


def test_an_agent_is_told_what_it_builds_on_and_who_works_beside_it(fleet: TestFleet, repository: Path) -> None:
    read = 'cat "$ORCHESTRATOR_PROMPT_FILE" > {}.md'
    job_id = fleet.submit(
        {
            "title": "Told",
            "goal": "Tell them.",
            "repo": str(repository),
            "subtasks": [
                shell(1, "echo one > one.txt; echo one is there"),
                shell(2, read.format("two"), group=2, depends_on=[1]),
                shell(3, "true", group=2, title="The other", files=["three.txt"]),
            ],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    prompt = git(repository, "show", f"orchestrator/{job_id}:two.md")
    commit = fleet.subtasks(job_id)[1]["commit"]
    assert "Tell them." in prompt
    assert f"### Subtask 1: Step 1 (commit {commit[:12]})\n\nFiles changed: `one.txt`.\n" in prompt
    assert "one is there" in prompt
    assert "- 3: The other (touches `three.txt`)\n" in prompt


def test_a_failed_subtask_is_retried_after_a_back_off_and_told_what_went_wrong(
    fleet: TestFleet, repository: Path
) -> None:
    second_time = 'grep -q "exit code 9" "$ORCHESTRATOR_PROMPT_FILE" && echo good > good.txt || exit 9'
    job_id = fleet.submit({"title": "Retry", "repo": str(repository), "subtasks": [shell(1, second_time)]})
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]
    waited = (attempts[1]["started_at"] - attempts[0]["finished_at"]).total_seconds()
    assert waited >= fleet.settings.retry_initial_seconds
    assert fleet.subtasks(job_id)[1]["failures"] == 1


def test_a_red_check_fails_the_attempt_and_its_output_is_in_the_next_prompt(fleet: TestFleet, repository: Path) -> None:
    command = 'grep -q "no answer yet" "$ORCHESTRATOR_PROMPT_FILE" && echo 1 > told.txt || echo 0 > told.txt'
    check = "grep -q 1 told.txt || { printf 'no %s yet\\n' answer; false; }"
    job_id = fleet.submit({"title": "Check", "repo": str(repository), "subtasks": [shell(1, command, check=check)]})
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    assert [attempt["status"] for attempt in attempts] == ["check_failed", "completed"]
    assert "no answer yet" in attempts[0]["check_output"]


def test_a_red_group_check_sends_the_last_subtask_back_onto_the_merged_branch(
    fleet: TestFleet, repository: Path
) -> None:
    mend = "if [ -e one.txt ]; then echo mended > mended.txt; else echo two > two.txt; fi"
    job_id = fleet.submit(
        {
            "title": "Group check",
            "repo": str(repository),
            "group_checks": "test -e one.txt -a -e two.txt -a -e mended.txt || { echo it is not mended; false; }",
            "subtasks": [shell(1, "echo one > one.txt"), shell(2, mend)],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    runs = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id ORDER BY number", id=job_id)
    assert [(run["subtask_ids"], run["success"]) for run in runs] == [([1, 2], False), ([2], True)]
    assert [run["woken_by"] for run in runs] == ["callback", "callback"]
    assert "it is not mended" in runs[0]["execution_metadata"]["check"]["output"]
    files = git(repository, "ls-tree", "--name-only", f"orchestrator/{job_id}").split()
    assert files == ["README", "mended.txt", "one.txt", "two.txt"]
    assert len(fleet.rows("SELECT 1 FROM attempts WHERE job_id = :id AND subtask_id = 1", id=job_id)) == 1


def test_a_group_check_that_stays_red_fails_the_job_and_says_why(fleet: TestFleet, repository: Path) -> None:
    job_id = fleet.submit(
        {
            "title": "Red",
            "repo": str(repository),
            "group_checks": "echo the sky is red; false",
            "max_retries": 1,
            "subtasks": [shell(1, "echo one > one.txt"), shell(2, "echo two > two.txt", group=2)],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "group_check")
    subtasks = fleet.subtasks(job_id)
    assert (subtasks[1]["status"], subtasks[1]["outcome"]) == ("failed", "check_failed")
    assert "the sky is red" in subtasks[1]["error"]
    assert subtasks[2]["status"] == "skipped"


def test_a_conflict_fails_the_later_subtask_and_names_files_and_both(fleet: TestFleet, repository: Path) -> None:
    job_id = fleet.submit(
        {
            "title": "Conflict",
            "repo": str(repository),
            "subtasks": [shell(1, "echo mine > README"), shell(2, "echo yours > README"), shell(3, "true", group=2)],
        }
    )
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "conflict")
    subtasks = fleet.subtasks(job_id)
    assert {n: row["status"] for n, row in subtasks.items()} == {1: "completed", 2: "failed", 3: "skipped"}
    assert subtasks[2]["outcome"] == "conflict"
    assert all(word in subtasks[2]["error"] for word in ("README", "2", "1"))
    run = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id", id=job_id)[0]
    assert run["conflict_detected"]
    assert run["conflict_details"][0]["files"][0]["path"] == "README"
    assert git(repository, "show", f"orchestrator/{job_id}:README") == "mine\n"
