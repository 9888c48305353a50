"""A retry goes on with the session and the work of an attempt that was cut off, on any worker, or starts anew."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.dispatch.steering import cancel_job
from orchestrator.recovery.pruner import PruneRules, old_jobs, prune_jobs
from tests.support.cumulative_agent import MODULE
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import git, new_repository, refuse_pushes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

NO_END = {"hang": True}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def plan(repository: Path | None, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    subtask = {"subtask_id": 1, "title": "The part", "parallel_group": 1, **more}
    subtask["agent"] = {"name": "scripted", "script": list(steps)}
    told = {"title": "Resume", "max_retries": 3, "subtasks": [subtask]}
    return {**told, "repo": str(repository)} if repository else told


def first(*steps: dict[str, Any]) -> dict[str, Any]:
    """What only the first attempt does."""
    return {"on_attempt": {"1": list(steps)}}


def attempts_of(fleet: TestFleet, job_id: str) -> list[dict[str, Any]]:
    return fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)


def told(fleet: TestFleet, job_id: str) -> list[tuple[str, int | None]]:
    return [(row["status"], row["resumed_from"]) for row in attempts_of(fleet, job_id)]


def remembered(repository: Path, job_id: str) -> list[dict[str, Any]]:
    """The session's file as the last attempt saw it."""
    return [json.loads(line) for line in git(repository, "show", f"orchestrator/{job_id}:memory").splitlines()]


def checkpoints(fleet: TestFleet) -> int:
    return int(fleet.rows("SELECT count(*) AS n FROM checkpoints")[0]["n"])


def kept_files(fleet: TestFleet, repository: Path) -> list[str]:
    rows = fleet.rows("SELECT c.commit FROM checkpoints c WHERE c.commit IS NOT NULL")
    return git(repository, "ls-tree", "--name-only", rows[0]["commit"]).split() if rows else []


def test_another_worker_goes_on_where_one_that_is_shut_down_has_stopped(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "at-work"
    fleet.start_dispatcher()
    fleet.start_worker("leaving")
    job_id = fleet.submit(
        plan(
            repository,
            {"session": "s-1"},
            first(
                {"write": "committed", "content": "1\n"},
                {"commit": "The agent's own"},
                {"write": "begun", "content": "half\n"},
                {"remember": "begun is half done"},
                {"write": str(mark)},
                NO_END,
            ),
            {"append": "begun", "content": "whole\n"},
            {"recall": "memory"},
        )
    )
    wait_until(mark.exists, "the agent works")
    fleet.stop("leaving", signal.SIGTERM)
    assert checkpoints(fleet) == 1
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert told(fleet, job_id) == [("interrupted", None), ("completed", 1)]
    assert remembered(repository, job_id) == [
        {"attempt": 1},
        {"remembered": "begun is half done"},
        {"attempt": 2},
        {"attempt": 2},
    ]
    branch = f"orchestrator/{job_id}"
    assert git(repository, "show", f"{branch}:begun") == "half\nwhole\n"
    last = attempts_of(fleet, job_id)[-1]
    assert last["files_changed"] == ["begun", "committed", "memory"]
    subjects = git(repository, "log", "--format=%s", f"main..{last['commit']}").splitlines()
    assert subjects == ["The part", "The agent's own"], "as if one attempt had done it all"
    resumed = fleet.rows("SELECT attempt, data FROM events WHERE name = 'attempt.resumed'")
    assert resumed == [{"attempt": 2, "data": {"resumed_from": 1}}]
    assert checkpoints(fleet) == 0


def test_a_session_that_runs_out_of_time_is_gone_on_with_twice_and_then_left(
    fleet: TestFleet, repository: Path
) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    steps = [
        {"session": "s-1"},
        {"append": "work", "content": "x\n"},
        {"on_attempt": {"1": [NO_END], "2": [NO_END], "3": [NO_END]}},
        {"recall": "memory"},
    ]
    job_id = fleet.submit(plan(repository, *steps, timeout="1s"))
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert told(fleet, job_id) == [("timeout", None), ("timeout", 1), ("timeout", 2), ("completed", None)]
    assert git(repository, "show", f"orchestrator/{job_id}:work") == "x\n", "the last one began anew"
    assert remembered(repository, job_id) == [{"attempt": 4}]


@pytest.mark.parametrize("outcome", ["rate_limited", "provider_unavailable"])
def test_a_provider_that_does_not_answer_costs_neither_session_nor_work(
    fleet: TestFleet, repository: Path, outcome: str
) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    steps = [{"session": "s-1"}, first({"write": "a"}, {"end": outcome}), {"recall": "memory"}]
    job_id = fleet.submit(plan(repository, *steps))
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert told(fleet, job_id) == [(outcome, None), ("completed", 1)]
    assert attempts_of(fleet, job_id)[-1]["files_changed"] == ["a", "memory"]


def test_a_session_that_is_gone_on_with_is_paid_for_once(
    database: str, broker: str, repository: Path, tmp_path: Path
) -> None:
    """Its program tells what the session has used so far: $0.30, and $0.50 at the end of the second run."""
    fleet = open_fleet(database, broker, tmp_path, agent_modules=[MODULE])
    try:
        fleet.start_dispatcher()
        fleet.start_worker()
        begun = {"usage": {"input_tokens": 100}, "cost_usd": 0.3}
        steps = [
            {"session": "s-1"},
            first({"write": "a"}, begun, {"end": "provider_unavailable"}),
            {"usage": {"input_tokens": 150}, "cost_usd": 0.5},
        ]
        written = plan(repository, *steps)
        written["subtasks"][0]["agent"]["name"] = "cumulative"
        job_id = fleet.submit({**written, "max_cost_usd": 0.6})
        assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
        assert told(fleet, job_id) == [("provider_unavailable", None), ("completed", 1)]
        figures = [
            (row["usage"], row["cost_usd"], row["reported_usage"], row["reported_cost_usd"])
            for row in attempts_of(fleet, job_id)
        ]
        assert figures == [
            ({"input_tokens": 100}, 0.3, {"input_tokens": 100}, 0.3),
            ({"input_tokens": 50}, 0.2, {"input_tokens": 150}, 0.5),
        ]
        assert float(fleet.job(job_id)["spent_usd"]) == 0.5
    finally:
        fleet.close()


def test_an_agent_that_has_failed_starts_anew(fleet: TestFleet, repository: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    steps = [{"session": "s-1"}, first({"write": "a"}, {"fail": "no"}), {"recall": "memory"}]
    job_id = fleet.submit(plan(repository, *steps))
    fleet.wait_for_end(job_id)
    assert told(fleet, job_id) == [("failed", None), ("completed", None)]
    assert attempts_of(fleet, job_id)[-1]["files_changed"] == ["memory"]
    assert remembered(repository, job_id) == [{"attempt": 2}]


def cut_off_once(fleet: TestFleet, repository: Path | None, *later: dict[str, Any]) -> str:
    """A job whose first attempt was interrupted; what it has left is stored, and no worker runs."""
    mark = fleet.folder / "at-work"
    fleet.start_dispatcher()
    fleet.start_worker("leaving")
    steps = [{"session": "s-1"}, first({"write": "a"}, {"write": str(mark)}, NO_END), *later, {"recall": "memory"}]
    job_id = fleet.submit(plan(repository, *steps))
    wait_until(mark.exists, "the agent works")
    fleet.stop("leaving", signal.SIGTERM)
    return job_id


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("UPDATE checkpoints SET session = 'rubbish'", id="its session is no archive"),
        pytest.param("UPDATE checkpoints SET session = substr(session, 1, length(session) - 9)", id="it is cut short"),
        pytest.param("UPDATE checkpoints SET ref = ref || 'x'", id="its work is gone"),
        pytest.param("UPDATE checkpoints SET session_id = '../s-1'", id="its id is no id"),
        pytest.param("UPDATE checkpoints SET base_commit = repeat('0', 40)", id="the group begins elsewhere"),
        pytest.param("DELETE FROM checkpoints", id="there is none"),
    ],
)
def test_what_can_not_be_taken_up_whole_is_left_and_nothing_fails(
    fleet: TestFleet, repository: Path, harm: str
) -> None:
    job_id = cut_off_once(fleet, repository)
    with fleet.client.engine.begin() as connection:
        assert connection.execute(text(harm)).rowcount == 1
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert told(fleet, job_id) == [("interrupted", None), ("completed", None)]
    assert attempts_of(fleet, job_id)[-1]["files_changed"] == ["memory"]
    assert remembered(repository, job_id) == [{"attempt": 2}]
    assert checkpoints(fleet) == 0


def test_a_program_that_does_not_know_the_session_costs_no_retry(fleet: TestFleet, repository: Path) -> None:
    job_id = cut_off_once(fleet, repository, {"on_attempt": {"2": [{"refuse_session": True}]}})
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert told(fleet, job_id) == [("interrupted", None), ("interrupted", 1), ("completed", None)]
    assert "there is no session s-1" in attempts_of(fleet, job_id)[1]["error"]
    assert fleet.subtasks(job_id)[1]["failures"] == 0


def test_work_that_the_repository_refuses_is_not_remembered_either(fleet: TestFleet, repository: Path) -> None:
    hook = refuse_pushes(repository)
    job_id = cut_off_once(fleet, repository)
    assert checkpoints(fleet) == 0
    hook.unlink()
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert told(fleet, job_id)[-1] == ("completed", None)


def test_without_a_repository_the_files_are_gone_and_so_the_session_is_left(fleet: TestFleet) -> None:
    job_id = cut_off_once(fleet, None)
    assert checkpoints(fleet) == 0
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert told(fleet, job_id)[-1] == ("completed", None)


def test_a_session_larger_than_allowed_is_not_kept(
    database: str, broker: str, repository: Path, tmp_path: Path
) -> None:
    fleet = open_fleet(database, broker, tmp_path, max_session_bytes=10)
    try:
        job_id = cut_off_once(fleet, repository)
        assert checkpoints(fleet) == 0
        fleet.start_worker("heir")
        assert fleet.wait_for_end(job_id)["status"] == "completed"
        assert told(fleet, job_id)[-1] == ("completed", None)
    finally:
        fleet.close()


def test_a_cancelled_job_keeps_no_session(fleet: TestFleet, repository: Path) -> None:
    job_id = cut_off_once(fleet, repository)
    assert checkpoints(fleet) == 1
    cancel_job(fleet.client, job_id)
    fleet.wait_for_end(job_id)
    assert checkpoints(fleet) == 0


def test_the_heir_of_a_killed_worker_goes_on_from_its_last_checkpoint(
    database: str, broker: str, repository: Path, tmp_path: Path
) -> None:
    fleet = open_fleet(database, broker, tmp_path, checkpoint_seconds=0.3)
    try:
        fleet.start_dispatcher()
        fleet.start_worker("doomed")
        work = [{"write": "own", "content": "1\n"}, {"commit": "Own"}, {"write": "a", "content": "1\n"}]
        steps = [{"session": "s-1"}, first(*work, {"remember": "a"}, NO_END), {"recall": "memory"}]
        job_id = fleet.submit(plan(repository, *steps))
        wait_until(lambda: "a" in kept_files(fleet, repository), "a checkpoint has all of it")
        fleet.stop("doomed", signal.SIGKILL)
        fleet.start_worker("heir")
        assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
        assert told(fleet, job_id) == [("worker_lost", None), ("completed", 1)]
        last = attempts_of(fleet, job_id)[-1]
        assert last["files_changed"] == ["a", "memory", "own"]
        assert remembered(repository, job_id)[0] == {"attempt": 1}
        subjects = git(repository, "log", "--format=%s", f"main..{last['commit']}").splitlines()
        assert subjects == ["The part", "Own"]
        refs = git(repository, "for-each-ref", "--format=%(refname)", "refs/orchestrator").split()
        assert {ref[:-1] for ref in refs} == {f"refs/orchestrator/{job_id}/1/{name}" for name in ("1-checkpoint-", "")}
        rules = PruneRules(older_than_seconds=0)
        assert [one.is_gone for one in prune_jobs(fleet.client.engine, old_jobs(fleet.client.engine, rules), rules)]
        assert git(repository, "for-each-ref", "refs/orchestrator") == ""
    finally:
        fleet.close()


def test_an_agent_is_not_disturbed_by_checkpoints(database: str, broker: str, repository: Path, tmp_path: Path) -> None:
    """Its index and its HEAD are its own, and what it ends with is what is merged, not what was kept on the way."""
    fleet = open_fleet(database, broker, tmp_path, checkpoint_seconds=0.1)
    go = tmp_path / "go"
    try:
        fleet.start_dispatcher()
        fleet.start_worker()
        steps = [
            {"session": "s-1"},
            {"write": "thrown-away"},
            {"write": "kept", "content": "1\n"},
            {"remember": "both"},
            {"wait_for": str(go)},
            {"delete": "thrown-away"},
            {"commit": "Own"},
        ]
        job_id = fleet.submit(plan(repository, *steps))
        wait_until(lambda: "thrown-away" in kept_files(fleet, repository), "a checkpoint has the file")
        (folder,) = fleet.settings.workspaces_dir.glob(f"{job_id}-*/checkout")
        status = git(folder, "status", "--porcelain").splitlines()
        assert sorted(status) == ["?? kept", "?? thrown-away"]
        go.touch()
        assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
        files = git(repository, "ls-tree", "--name-only", f"orchestrator/{job_id}").split()
        assert files == ["README", "kept"]
        assert git(repository, "log", "--format=%s", f"main..{attempts_of(fleet, job_id)[0]['commit']}") == "Own\n"
        assert checkpoints(fleet) == 0
    finally:
        fleet.close()
