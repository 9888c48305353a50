"""`ParallelAgentCoordinator` over the real queue: what it keeps of the original one, and what must not go wrong again.

| what the original got wrong | where it is tested here |
|---|---|
| only the first `max_parallel_agents` subtasks of a group ran | `test_every_subtask_runs_and_never_more_than_the_limit_at_once`, `acceptance/test_two_jobs_at_once` |
| retries never happened | `test_a_failure_is_retried_as_the_configuration_says`, `unit/test_retry_policy`, `test_main_job` |
| one deadline a group; late threads ran on | `test_each_agent_has_its_own_deadline_and_the_job_has_one_too`, `test_outcomes`, `test_supervisor` |
| clean-up only on success | `test_plugin` (failed, cancelled, not initialised), `test_workspace` (removed after a failure) |
| initialised twice, the second time with an empty configuration | `test_plugin`, `unit/test_agent_choice` |
| ungrouped subtasks ran first, in reverse; dependencies were ignored | `test_subtasks_without_a_group_run_after_what_they_need`, `unit/test_plan_grouping` |
| "merge" only sorted; agents shared a folder | `test_work_is_merged_and_a_conflict_is_a_result`, `test_merge_branches`, `test_workspace` |
| the testing rule met "latest", and came when results were there to be lost | `test_what_breaks_a_rule_is_refused_before_anything_runs`, `unit/test_plan_validate` |
| the record said success; failures raised the speed-up; one agent was no attempt | `test_the_record_of_a_group_run_is_true`, `unit/test_group_record` |
| a completed subtask was reported as failed when it came again | `test_finished_work_is_returned_as_it_is_and_the_rest_goes_on_from_it` |
| what could not start became a mock | `unit/test_agent_choice`, `test_an_unknown_agent_is_an_error_before_anything_runs`, `test_outcomes` |
| one session for all | `unit/test_claude_code`, `acceptance/test_original_code` (a configuration folder of its own an attempt) |
| the prompt named dependencies by id only | `test_the_prompt_has_what_dependencies_produced`, `unit/test_plan_prompt` |
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator import (
    AgentSpec,
    OrchestratorException,
    ParallelAgentCoordinator,
    PlanError,
    StateManager,
    SubTask,
    Task,
)
from orchestrator.agent_choice import AgentRegistry
from orchestrator.errors import BadInput, ConfigurationError, LocalStackError
from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    return shared_fleet


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def sh(subtask_id: int, command: str, group: int | None = 1, **more: Any) -> SubTask:
    """A subtask whose agent is a command."""
    agent = {"name": "shell", "command": command}
    return SubTask.model_validate(
        {"subtask_id": subtask_id, "title": f"Step {subtask_id}", "parallel_group": group, "agent": agent, **more}
    )


def coordinator_of(fleet: TestFleet, **config: Any) -> ParallelAgentCoordinator:
    return ParallelAgentCoordinator(StateManager(fleet.settings), "scripted", config)


def statuses(results: list[dict[str, Any]]) -> dict[int, str]:
    return {result["subtask_id"]: result["status"] for result in results}


def test_nothing_to_do_is_no_result(fleet: TestFleet) -> None:
    assert coordinator_of(fleet).execute_parallel([], parent_task="x") == []


def test_results_are_sorted_and_whole(fleet: TestFleet, repository: Path) -> None:
    subtasks = [sh(3, "exit 3", group=2), sh(2, "echo two > 2.txt; echo made two"), sh(1, "echo one > 1.txt")]
    results = coordinator_of(fleet, repo=str(repository), max_retries=0).execute_parallel(subtasks, parent_task="All")
    assert [result["subtask_id"] for result in results] == [1, 2, 3]
    one, two, three = results
    assert two["result"] == "made two"
    assert (two["status"], two["outcome"], two["error"], two["attempts"]) == ("completed", "completed", None, 1)
    assert (two["files_changed"], two["merged"]) == (("2.txt",), True)
    assert two["duration_seconds"] > 0
    assert (three["status"], three["outcome"], three["merged"]) == ("failed", "failed", False)
    assert "exit code 3" in three["error"]
    assert git(repository, "rev-parse", one["branch"]).strip() == one["head_commit"]
    assert [subtask.status for subtask in subtasks] == ["failed", "completed", "completed"]


def test_the_status_of_each_subtask_follows_it(fleet: TestFleet, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"until test -e {gate}; do sleep 0.02; done"
    subtasks = [sh(1, wait), sh(2, f"{wait}; false"), sh(3, "true", group=2)]
    coordinator = coordinator_of(fleet, max_retries=0)
    assert {subtask.status for subtask in subtasks} == {"pending"}
    caller = threading.Thread(target=coordinator.execute_parallel, args=(subtasks, "x"))
    caller.start()
    try:
        wait_until(
            lambda: [subtask.status for subtask in subtasks] == ["in_progress", "in_progress", "pending"],
            "both agents of the first group are at work",
        )
    finally:
        gate.touch()
        caller.join()
    assert [subtask.status for subtask in subtasks] == ["completed", "failed", "skipped"]


def test_every_subtask_runs_and_never_more_than_the_limit_at_once(fleet: TestFleet) -> None:
    coordinator = coordinator_of(fleet, max_parallel_agents=2)
    results = coordinator.execute_parallel([sh(n, "sleep 0.05") for n in range(1, 8)], parent_task={"id": 71})
    assert statuses(results) == dict.fromkeys(range(1, 8), "completed")
    [attempt] = StateManager(fleet.settings).get_parallel_attempts(71)
    assert attempt.num_agents == 7
    assert attempt.max_concurrent_agents <= 2


@pytest.mark.parametrize(
    ("config", "attempts"), [({}, 2), ({"retry_failed_agents": False}, 1), ({"max_retries": 0}, 1)]
)
def test_a_failure_is_retried_as_the_configuration_says(
    fleet: TestFleet, config: dict[str, Any], attempts: int
) -> None:
    [result] = coordinator_of(fleet, **config).execute_parallel(
        [sh(1, 'test "$ORCHESTRATOR_ATTEMPT_NUMBER" = 2')], parent_task="x"
    )
    assert (result["attempts"], result["status"]) == (attempts, "completed" if attempts == 2 else "failed")


def test_each_agent_has_its_own_deadline_and_the_job_has_one_too(fleet: TestFleet) -> None:
    coordinator = coordinator_of(fleet, agent_timeout_seconds=0.5, max_retries=0)
    results = coordinator.execute_parallel([sh(1, "sleep 600"), sh(2, "true")], parent_task="x")
    assert statuses(results) == {1: "timeout", 2: "completed"}
    [result] = coordinator_of(fleet, deadline=0.5).execute_parallel([sh(1, "sleep 600")], parent_task="x")
    assert result["status"] == "cancelled"


def test_an_agents_own_timeout_and_the_coordinators_both_hold(fleet: TestFleet) -> None:
    def impatient() -> Any:
        agent = AgentRegistry.get("shell", fleet.settings)()
        agent.initialize({"command": "sleep 600", "timeout": 0.5})
        return agent

    coordinator = ParallelAgentCoordinator(
        StateManager(fleet.settings), impatient, {"agent_timeout_seconds": 300, "max_retries": 0}
    )
    [result] = coordinator.execute_parallel([SubTask(subtask_id=1, title="Wait")], parent_task="x")
    assert result["status"] == "timeout"


def test_subtasks_without_a_group_run_after_what_they_need(fleet: TestFleet, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    write = f"echo $ORCHESTRATOR_SUBTASK >> {diary}"
    subtasks = [sh(4, write, None), sh(3, write, None), sh(2, write, 1), sh(1, write, 2, dependencies=[2])]
    coordinator_of(fleet).execute_parallel(subtasks, parent_task="x")
    assert diary.read_text().split() == ["2", "1", "3", "4"]


def test_work_is_merged_and_a_conflict_is_a_result(fleet: TestFleet, repository: Path) -> None:
    coordinator = coordinator_of(fleet, repo=str(repository))
    results = coordinator.execute_parallel(
        [sh(1, "echo mine > README"), sh(2, "echo yours > README"), sh(3, "echo three > 3.txt")],
        parent_task=Task(id=72, title="Conflict"),
    )
    assert statuses(results) == {1: "completed", 2: "failed", 3: "completed"}
    assert results[1]["outcome"] == "conflict"
    assert "README" in results[1]["error"]
    assert git(repository, "show", f"{results[0]['branch']}:README") == "mine\n"
    assert git(repository, "show", f"{results[0]['branch']}:3.txt") == "three\n"
    [attempt] = StateManager(fleet.settings).get_parallel_attempts(72)
    assert (attempt.success, attempt.conflict_detected) == (False, True)


def test_the_record_of_a_group_run_is_true(fleet: TestFleet) -> None:
    state_manager = StateManager(fleet.settings)
    coordinator = ParallelAgentCoordinator(state_manager, "scripted", {"max_retries": 0, "on_failure": "continue"})
    subtasks = [sh(1, "sleep 0.3"), sh(2, "sleep 0.3; false"), sh(3, "true", group=2)]
    results = coordinator.execute_parallel(subtasks, parent_task={"id": "T-9"}, context={"project_id": 4})
    two, one = state_manager.get_parallel_attempts("T-9")
    assert (two.subtask_ids, two.num_agents, two.failed_agent_count, two.success) == ((1, 2), 2, 1, False)
    assert (one.subtask_ids, one.num_agents, one.failed_agent_count, one.success) == ((3,), 1, 0, True)
    assert (len(two.agent_ids), two.parallelization_strategy) == (2, "parallel_groups")
    assert (two.fallback_to_sequential, two.conflict_detected, two.failure_reason is None) == (False, False, False)
    assert two.started_at < two.completed_at <= one.started_at
    assert two.sequential_estimate_seconds == pytest.approx(results[0]["duration_seconds"])
    assert two.speedup_factor == pytest.approx(two.sequential_estimate_seconds / two.total_duration_seconds, rel=0.01)
    assert (two.parent_task_id, two.execution_metadata["context"]) == ("T-9", {"project_id": 4})
    assert state_manager.get_parallel_attempts(job_id=results[0]["job_id"]) == [two, one]
    assert state_manager.get_parallel_attempts("another") == []


def test_finished_work_is_returned_as_it_is_and_the_rest_goes_on_from_it(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    needs_one = f"cp $ORCHESTRATOR_PROMPT_FILE {tmp_path}/prompt; test -e {ready} && cat 1.txt && echo two > 2.txt"
    subtasks = [
        sh(1, f"echo run >> {tmp_path}/runs; echo one > 1.txt; echo made one"),
        sh(2, needs_one, 2, dependencies=[1]),
    ]
    coordinator = coordinator_of(fleet, repo=str(repository), max_retries=0, group_checks={1: "true", 2: "true"})
    first = coordinator.execute_parallel(subtasks, parent_task="x")
    assert statuses(first) == {1: "completed", 2: "failed"}
    ready.touch()
    second = coordinator.execute_parallel(subtasks, parent_task="x")
    assert statuses(second) == {1: "completed", 2: "completed"}
    assert second[0] == first[0]
    assert (tmp_path / "runs").read_text() == "run\n"
    assert "made one" in (tmp_path / "prompt").read_text()
    files = git(repository, "ls-tree", "--name-only", second[1]["branch"]).split()
    assert files == ["1.txt", "2.txt", "README"]
    assert coordinator.execute_parallel(subtasks, parent_task="x") == second


def test_work_that_was_finished_elsewhere_is_returned_too(fleet: TestFleet) -> None:
    done = sh(1, "false", status="completed")
    [result] = coordinator_of(fleet).execute_parallel([done], parent_task="x")
    assert (result["status"], result["error"], result["attempts"], result["job_id"]) == ("completed", None, 0, None)


def test_the_prompt_has_what_dependencies_produced_the_task_and_the_context(fleet: TestFleet, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    subtasks = [sh(1, "echo the answer is 42"), sh(2, f"cp $ORCHESTRATOR_PROMPT_FILE {prompt}", 2, dependencies=[1])]
    task = Task(id=5, title="Everything", description="Find the question.")
    coordinator_of(fleet).execute_parallel(subtasks, parent_task=task, context={"project_id": 77})
    text = prompt.read_text()
    assert all(words in text for words in ("the answer is 42", "Everything", "Find the question.", "project_id: 77"))


def jobs_of(fleet: TestFleet) -> int:
    return int(fleet.rows("SELECT count(*) AS n FROM jobs")[0]["n"])


@pytest.mark.parametrize(
    ("subtasks", "says"),
    [
        ([sh(1, "true", title="Run unit tests"), sh(2, "true", title="Run integration tests")], "alone in its group"),
        ([sh(1, "true"), sh(2, "true", group=2), sh(3, "true", group=2, title="Run tests")], "alone in its group"),
        ([sh(1, "true", dependencies=[2]), sh(2, "true", group=2)], "later group"),
        ([sh(1, "true"), sh(1, "true")], "used twice"),
    ],
)
def test_what_breaks_a_rule_is_refused_before_anything_runs(
    fleet: TestFleet, subtasks: list[SubTask], says: str
) -> None:
    before = jobs_of(fleet)
    with pytest.raises(OrchestratorException, match=says) as caught:
        coordinator_of(fleet).execute_parallel(subtasks, parent_task="x")
    assert caught.value.context["faults"]
    assert jobs_of(fleet) == before
    assert {subtask.status for subtask in subtasks} == {"pending"}


def test_latest_contest_and_attestation_are_no_tests(fleet: TestFleet) -> None:
    titles = ("Use the latest release", "Enter the contest", "Write the attestation")
    subtasks = [sh(number, "true", title=title) for number, title in enumerate(titles, start=1)]
    assert set(statuses(coordinator_of(fleet).execute_parallel(subtasks, "x")).values()) == {"completed"}


def test_an_unknown_agent_is_an_error_before_anything_runs(fleet: TestFleet) -> None:
    coordinator = ParallelAgentCoordinator(StateManager(fleet.settings), "claud")
    before = jobs_of(fleet)
    with pytest.raises(ConfigurationError, match="claud"):
        coordinator.execute_parallel([SubTask(subtask_id=1, title="x")], parent_task="x")
    assert jobs_of(fleet) == before


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"max_parallel_agent": 3}, PlanError, "max_parallel_agent"),
        ({"max_parallel_agents": 0}, PlanError, "max_parallel_agents"),
        ({"subtasks": []}, ConfigurationError, "subtasks"),
    ],
)
def test_a_configuration_that_no_plan_takes_is_refused_at_once(
    fleet: TestFleet, config: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        coordinator_of(fleet, **config)


def test_something_else_than_subtasks_is_refused(fleet: TestFleet) -> None:
    with pytest.raises(BadInput, match="SubTask"):
        coordinator_of(fleet).execute_parallel([{"subtask_id": 1}], parent_task="x")  # type: ignore[list-item]


def test_who_is_interrupted_leaves_no_agent_behind(fleet: TestFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = coordinator_of(fleet)

    def broken(*_: Any) -> None:
        raise LocalStackError("The stack is gone.")

    monkeypatch.setattr(coordinator, "_follow", broken)
    with pytest.raises(LocalStackError):
        coordinator.execute_parallel([sh(1, "sleep 600")], parent_task="Interrupted")
    job_id = fleet.rows("SELECT id FROM jobs WHERE title = 'Interrupted'")[0]["id"]
    assert fleet.wait_for_end(job_id)["status"] == "cancelled"


def test_many_threads_may_use_one_coordinator(fleet: TestFleet) -> None:
    coordinator, results = coordinator_of(fleet), {}

    def execute(number: int) -> None:
        subtasks = [sh(1, f"echo thread {number}")]
        results[number] = coordinator.execute_parallel(subtasks, parent_task={"id": number})

    threads = [threading.Thread(target=execute, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: result[0]["result"] for number, result in results.items()} == {n: f"thread {n}" for n in range(3)}


def test_the_log_tells_the_story(fleet: TestFleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    coordinator = coordinator_of(fleet, max_retries=1)
    retried = 'test "$ORCHESTRATOR_ATTEMPT_NUMBER" = 2'
    coordinator.execute_parallel([sh(1, retried), sh(2, "exit 4", 2)], parent_task={"id": 100})
    said = [
        f"[{record.levelname}] {record.getMessage()}"
        for record in caplog.records
        if record.name in {"orchestrator.coordinator", "orchestrator.state_manager"}
    ]
    story = [
        "[INFO] ParallelAgentCoordinator initialized: max_agents=5, timeout=600s, retry=True (max=1)",
        "[INFO] Starting parallel execution of 2 subtasks",
        "[INFO] Executing parallel group 1 with 1 subtasks",
        "[INFO] Starting 1 agents",
        "[INFO] Agent starting execution of subtask 1",
        "[WARNING] Agent ended subtask 1 as failed, trying again in ",
        "[INFO] Agent starting execution of subtask 1",
        "[INFO] Agent completed subtask 1 successfully in ",
        "[INFO] Agent monitoring complete: 1 results in ",
        "[INFO] Executing parallel group 2 with 1 subtasks",
        "[ERROR] Agent ended subtask 2 as failed for good: ",
        "[INFO] Parallel execution complete: 2 results, 1 successful",
    ]
    remaining = iter(said)
    for line in story:
        assert any(one.startswith(line) for one in remaining), f"{line!r} is missing, or out of order, in {said}"
    assert any("1 successful, 0 failed, 0 timed out" in line for line in said)
    # A record is logged when it is read, which on a busy machine may be after the next group has begun.
    records = [line.partition(", duration=")[0] for line in said if line.startswith("[INFO] Logged")]
    logged = "[INFO] Logged parallel attempt: task_id=100, agents=1, success="
    assert records == [f"{logged}True", f"{logged}False"]


def test_a_program_that_no_worker_has_is_logged(fleet: TestFleet, caplog: pytest.LogCaptureFixture) -> None:
    agent = AgentSpec(name="claude-code", config={"path": "/nowhere/claude"})
    wait_until(lambda: len(fleet.client.app.control.inspect().ping() or ()) == 2, "the worker answers")
    coordinator = ParallelAgentCoordinator(StateManager(fleet.settings), agent)
    [result] = coordinator.execute_parallel([SubTask(subtask_id=1, title="x")], parent_task="Something")
    assert result["outcome"] == "agent_missing"
    warnings = [record.getMessage() for record in caplog.records if record.name == "orchestrator.coordinator"]
    assert any(words.startswith("No worker that answers can start claude-code for subtask 1") for words in warnings)


def test_a_task_is_the_callers(fleet: TestFleet) -> None:
    kept = Task(id=7, title="Mine")
    assert StateManager(fleet.settings, tasks={7: kept}).get_task(task_id=7) is kept
    assert StateManager(fleet.settings, tasks=lambda number: kept if number == 7 else None).get_task(7) is kept
    with pytest.raises(BadInput, match="no task 8") as caught:
        StateManager(fleet.settings).get_task(8)
    assert caught.value.context == {"task_id": 8}
    assert caught.value.recovery


def test_a_record_that_is_gone_can_not_be_logged(fleet: TestFleet) -> None:
    state_manager = StateManager(fleet.settings)
    coordinator_of(fleet).execute_parallel([sh(1, "true")], parent_task={"id": 73})
    [attempt] = wait_until(lambda: state_manager.get_parallel_attempts(73), "the attempt is logged")
    with pytest.raises(BadInput, match="no record"):
        state_manager.log_parallel_attempt(type(attempt)(**{**vars(attempt), "id": -1}), parent_task_id=73)
    with pytest.raises(BadInput, match="not both"):
        state_manager.get_parallel_attempts(73, job_id=attempt.job_id)
