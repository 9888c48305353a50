"""Code that was written for the original coordinator runs as it stands: `original_code.md`, with its imports renamed.

The agent is a stand-in for Claude Code's program on the PATH, which writes a file and says what the real one was
recorded to say; all else is real, on a local stack.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import (
    AgentPlugin,
    Orchestrator,
    OrchestratorException,
    ParallelAgentCoordinator,
    StateManager,
    SubTask,
    Task,
)
from orchestrator.agent_choice import AgentRegistry
from orchestrator.local.client import Need, local_stack
from orchestrator.settings import Settings, load_settings
from tests.support.repositories import git, new_repository
from tests.support.services import open_temporary_folder

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

TEXT = Path(__file__).with_name("original_code.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RENAMED = {
    "src.orchestration.parallel_agent_coordinator": "orchestrator",
    "src.orchestration.subtask": "orchestrator",
    "src.plugins.registry": "orchestrator",
}
RECORDED = Path(__file__).parents[1] / "support" / "recorded" / "claude-2.1.330" / "success.txt"
STAND_IN = """#!/bin/bash
[ "$1" = --version ] && { echo "2.1.330 (Claude Code)"; exit; }
prompt=$(cat)
echo "$prompt" > "$DIARY/prompt-$ORCHESTRATOR_SUBTASK.md"
echo "$CLAUDE_CONFIG_DIR $*" >> "$DIARY/started"
echo made > "made-$ORCHESTRATOR_SUBTASK.txt"
sed -n 's/^stdout\\t//p' "$RECORDED"
"""


def code_under(heading: str) -> str:
    """The first block under a heading, with its imports renamed."""
    found = BLOCK.search(TEXT, TEXT.index(f"{heading}\n"))
    assert found is not None
    code = found[1]
    for theirs, ours in RENAMED.items():
        code = code.replace(f"from {theirs} import", f"from {ours} import")
    assert "from src." not in code
    return code


@pytest.fixture(scope="module")
def house() -> Iterator[SimpleNamespace]:
    """A local stack that stays for all tests here, with the stand-in on its workers' PATH."""
    folder = open_temporary_folder()
    programs, diary = folder / "programs", folder / "diary"
    programs.mkdir()
    diary.mkdir()
    diary.chmod(0o777)
    stand_in = STAND_IN.replace("$DIARY", str(diary)).replace("$RECORDED", str(RECORDED))
    (programs / "claude").write_text(stand_in)
    (programs / "claude").chmod(0o755)
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("ORCHESTRATOR_")]:
        del os.environ[name]
    os.environ |= {"PATH": f"{programs}:{os.environ['PATH']}", "ORCHESTRATOR_STATE_DIR": str(folder / "state")}
    os.environ["ORCHESTRATOR_SANDBOXED"] = "true"  # its code is `dangerous`, which root may be in a sandbox only
    try:
        with local_stack(load_settings(), need=Need.WORKERS, slots=10):
            yield SimpleNamespace(folder=folder, diary=diary)
    finally:
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(folder)


@pytest.fixture
def task() -> Task:
    return Task(id=100, title="Bookstore", description="Add the persistence layer.", project_id=1)


def run_block(heading: str, **names: Any) -> dict[str, Any]:
    exec(compile(code_under(heading), heading, "exec"), names)
    return names


def test_basic_usage(house: SimpleNamespace, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_block("### Basic Usage", state_manager=StateManager(), task=task)
    assert [result["status"] for result in names["results"]] == ["completed"] * 3
    assert capsys.readouterr().out.splitlines() == [
        line for number in (1, 2, 3) for line in (f"Subtask {number}: completed", f"  Result: {said()[:100]}...")
    ]
    attempts = StateManager().get_parallel_attempts(100)
    assert [(attempt.subtask_ids, attempt.success) for attempt in attempts] == [((1, 2), True), ((3,), True)]
    assert "Add the persistence layer." in (house.diary / "prompt-1.md").read_text()
    folders = [line.split()[0] for line in (house.diary / "started").read_text().splitlines()]
    assert len(set(folders)) == len(folders) == 3


def test_each_line_of_its_log_has_its_counterpart(
    house: SimpleNamespace, task: Task, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the figures are others, and threads, of which there are none. Which of two agents speaks first is open."""
    caplog.set_level(logging.INFO, "orchestrator")
    run_block("### Basic Usage", state_manager=StateManager(), task=task)
    theirs = TEXT[TEXT.index("Example log output:") :].split("```")[1].replace(" agent threads", " agents").split("\n")
    ours = [
        f"[{record.levelname}] {record.getMessage()}"
        for record in caplog.records
        if record.name in {"orchestrator.coordinator", "orchestrator.state_manager"}
    ]
    lines = [line for line in theirs if line]
    assert len(lines) == 14
    missing = Counter(map(without_times, lines)) - Counter(map(without_times, ours))
    assert not missing
    assert [without_times(line) for line in (ours[0], ours[1], ours[-1])] == [lines[0], lines[1], lines[-1]]


def without_times(line: str) -> str:
    return re.sub(r"\d+\.\d+(s|x)", r"N\1", line)


def said() -> str:
    lines = [line.removeprefix("stdout\t") for line in RECORDED.read_text().splitlines()]
    return str(json.loads(lines[-1])["result"])


@pytest.mark.skipif(Path("/workspace").exists(), reason="this machine has the folder that the code names")
def test_advanced_usage_with_a_custom_agent_factory(house: SimpleNamespace, task: Task) -> None:
    names = {"AgentRegistry": AgentRegistry, "ParallelAgentCoordinator": ParallelAgentCoordinator}
    names = run_block("### Advanced Usage with Custom Agent Factory", state_manager=StateManager(), **names)
    coordinator = names["coordinator"]
    subtasks = [SubTask(subtask_id=number, title=f"Model {number}", parallel_group=1) for number in (1, 2)]
    with pytest.raises(OrchestratorException, match="/workspace is no git repository") as caught:
        coordinator.execute_parallel(subtasks, parent_task=task)
    assert caught.value.context == {"workspace_path": "/workspace"}
    assert "git init" in caught.value.recovery


def test_advanced_usage_where_there_is_a_workspace(house: SimpleNamespace, task: Task) -> None:
    repository = new_repository(house.folder / "workspace")
    code = code_under("### Advanced Usage with Custom Agent Factory").replace("'/workspace'", repr(str(repository)))
    names: dict[str, Any] = {
        "AgentRegistry": AgentRegistry,
        "ParallelAgentCoordinator": ParallelAgentCoordinator,
        "state_manager": StateManager(),
    }
    exec(code, names)
    subtasks = [SubTask(subtask_id=number, title=f"Model {number}", parallel_group=1) for number in (1, 2)]
    results = names["coordinator"].execute_parallel(subtasks, parent_task=task)
    assert [result["status"] for result in results] == ["completed", "completed"]
    files = git(repository, "ls-tree", "--name-only", results[0]["branch"]).split()
    assert files == ["README", "made-1.txt", "made-2.txt"]
    assert "--permission-mode bypassPermissions" in (house.diary / "started").read_text()


def their_orchestrator(heading: str, task: Task, **methods: Callable[..., Any]) -> Any:
    """The class of a block, with what it calls "existing code" around it."""
    names = run_block(
        heading,
        ParallelAgentCoordinator=ParallelAgentCoordinator,
        AgentPlugin=AgentPlugin,
        Dict=dict,
        Any=Any,
    )

    class Whole(names["Orchestrator"]):
        def __init__(self) -> None:
            self._state_manager = StateManager(tasks={task.id: task})
            self._config = {"agent": {"headless": True}, "parallel_execution": {"max_parallel_agents": 2}}
            self._agent = AgentRegistry.get("claude_code_local")()
            super().__init__(self._config, self._state_manager, self._agent, llm=None)

    for name, method in methods.items():
        setattr(Whole, name, method)
    return Whole()


def models(*_: Any) -> list[SubTask]:
    return [SubTask(subtask_id=number, title=f"Model {number}", parallel_group=1) for number in (1, 2)]


def test_integration_option_1_direct(house: SimpleNamespace, task: Task) -> None:
    whole = their_orchestrator(
        "### Option 1: Direct Integration (Recommended)",
        task,
        _should_decompose_task=lambda self, found: found is task,
        _decompose_task=models,
        _merge_subtask_results=lambda self, results: {"statuses": [result["status"] for result in results]},
    )
    assert whole.execute_task(100) == {"statuses": ["completed", "completed"]}


def test_integration_option_1_leaves_a_small_task_to_a_single_agent(house: SimpleNamespace, task: Task) -> None:
    whole = their_orchestrator(
        "### Option 1: Direct Integration (Recommended)",
        task,
        _should_decompose_task=lambda self, found: False,
        _execute_single_agent=lambda self, found: {"alone": found.title},
    )
    assert whole.execute_task(100) == {"alone": "Bookstore"}


def test_integration_option_2_lazy(house: SimpleNamespace, task: Task) -> None:
    code = code_under("### Option 2: Lazy Initialization")
    assert "self._parallel_coordinator = None" in code
    agents: list[Any] = []

    def create(self: Any) -> Any:
        agents.append(type(self._agent)())
        return agents[-1]

    whole = their_orchestrator(
        "### Option 2: Lazy Initialization",
        task,
        _should_use_parallel_execution=lambda self, task_id: True,
        _create_agent_instance=create,
    )
    assert whole.execute_task(100) is None  # the block ends in "# ... execute parallel ..."
    coordinator = whole._get_parallel_coordinator()
    assert coordinator is whole._get_parallel_coordinator()
    results = coordinator.execute_parallel(models(), parent_task=task)
    assert [result["status"] for result in results] == ["completed", "completed"]
    assert len(agents) == 1


def subtasks_of(heading: str) -> list[list[SubTask]]:
    """Each `subtasks = […]` of a block: `...` stands for what a subtask needs besides."""
    built: list[list[SubTask]] = []
    ids = iter(range(1, 100))

    def some(_: Any, **words: Any) -> SubTask:
        return SubTask(subtask_id=next(ids), parent_task_id=100, description="As it says.", **words)

    for statement in re.split(r"^(?=# [✅❌])", code_under(heading), flags=re.MULTILINE)[1:]:
        names: dict[str, Any] = {"SubTask": some}
        exec(statement, names)
        built.append(names["subtasks"])
    return built


def test_valid_configurations_run(house: SimpleNamespace, task: Task) -> None:
    found = subtasks_of("### Valid Configuration")
    assert [len(subtasks) for subtasks in found] == [2, 1, 2]
    coordinator = ParallelAgentCoordinator(StateManager(), "claude_code_local")
    for subtasks in found:
        results = coordinator.execute_parallel(subtasks, parent_task=task)
        assert {result["status"] for result in results} == {"completed"}


def test_invalid_configurations_raise(house: SimpleNamespace, task: Task) -> None:
    found = subtasks_of("### Invalid Configuration")
    assert [len(subtasks) for subtasks in found] == [2, 2]
    coordinator = ParallelAgentCoordinator(StateManager(), "claude_code_local")
    for subtasks in found:
        with pytest.raises(OrchestratorException, match="must be alone in its group"):
            coordinator.execute_parallel(subtasks, parent_task=task)


def test_a_large_task_is_cut_and_its_results_are_merged(house: SimpleNamespace) -> None:
    repository = new_repository(house.folder / "large")
    large = Task(id=200, title="Models", description="All of them.", estimated_complexity=80)
    config = {"agent": {"workspace_path": str(repository)}, "parallel_execution": {"max_parallel_agents": 2}}
    whole = Orchestrator(
        config, StateManager(tasks={200: large}), AgentRegistry.get("claude-code")(), decomposer=models
    )
    merged = whole.execute_task(200)
    assert (merged["task_id"], merged["status"], merged["error"]) == (200, "completed", None)
    assert merged["result"] == f"1. Model 1: {said()}\n\n2. Model 2: {said()}"
    assert [result["subtask_id"] for result in merged["subtasks"]] == [1, 2]
    assert git(repository, "rev-parse", merged["branch"]).strip() == merged["commit"]


def test_a_small_task_is_one_agents_work(house: SimpleNamespace) -> None:
    def never(_: Any) -> list[SubTask]:
        raise AssertionError("a small task is not cut")

    small = Task(id=201, title="Fix a typo", description="In the README.", estimated_complexity=5)
    merged = Orchestrator({}, None, "claude-code", decomposer=never).execute_task(small)
    assert (merged["status"], merged["result"], len(merged["subtasks"])) == ("completed", said(), 1)
    assert "In the README." in (house.diary / "prompt-1.md").read_text()


def test_a_missing_program_is_an_error_before_a_stack_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    settings: Settings = load_settings(state_dir=tmp_path / "state")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ORCHESTRATOR_BROKER_URL", "ORCHESTRATOR_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OrchestratorException, match="needs the program claude"):
        ParallelAgentCoordinator(StateManager(settings)).execute_parallel(models(), parent_task=task)
    assert not (tmp_path / "state").exists()
