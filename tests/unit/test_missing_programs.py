"""What is said of a plan's agents whose programs are not there, and which of them are asked for at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.access.missing_programs import Need, needs_of, warnings_of
from orchestrator.access.nodes import Node
from orchestrator.access.programs import AgentProgram
from orchestrator.agent_names import known_agents
from orchestrator.plan.validate import validate_plan
from orchestrator.settings import load_settings
from orchestrator.task_names import queues_of_worker
from tests.support.plans import plan, subtask
from tests.support.waiting import wait_until
from workers.advertising import Advertising, look_for

CLAUDE = Need("claude-code", None, frozenset())


def worker(name: str, *capabilities: str) -> Node:
    return Node(name, tuple(queues_of_worker(capabilities)), 4, 0)


def program(
    worker: str, *, found: bool = True, version: str | None = "2.1.330", supported: bool = True
) -> AgentProgram:
    return AgentProgram(worker, "claude-code", None, found, version, supported, "" if found else "claude is not there")


MISSING = {"found": False, "version": None, "supported": False}


def said(needs: dict[Need, Sequence[int]], workers: Sequence[Node], *told: AgentProgram) -> list[str]:
    return list(warnings_of(needs, workers, told))


def test_only_agents_that_a_worker_may_be_without_are_asked_for() -> None:
    own = {"name": "claude-code", "path": "/opt/claude"}
    written = plan(
        subtask(1, parallel_group=1, agent={"name": "shell", "command": "true"}),
        subtask(2, parallel_group=1, agent={"name": "scripted", "script": []}),
        subtask(3, parallel_group=1, agent="claude-code"),
        subtask(4, parallel_group=1, agent="claude-code", requires=["gpu"]),
        subtask(5, parallel_group=1, agent=own),
        subtask(6, parallel_group=1, agent="claude-code"),
        defaults={"agent": "claude-code"},
    )
    known = known_agents(load_settings())
    assert needs_of(validate_plan(written, known_agents=known).subtasks, known) == {
        CLAUDE: [3, 6],
        Need("claude-code", None, frozenset({"gpu"})): [4],
        Need("claude-code", "/opt/claude", frozenset()): [5],
    }


def test_where_all_have_it_there_is_nothing_to_say() -> None:
    assert said({CLAUDE: [1]}, [worker("a")], program("a")) == []
    assert said({CLAUDE: [1]}, [worker("a")]) == [], "nor of one that did not answer"


def test_nobody_and_somebody_are_told_apart() -> None:
    two = [worker("a"), worker("b")]
    [nobody] = said({CLAUDE: [1, 2]}, two, program("a", **MISSING), program("b", version="1.9", supported=False))
    assert nobody.startswith(
        "No worker that answers can start claude-code for subtasks 1 and 2 (a: claude is not there; b: "
    )
    [somebody] = said({CLAUDE: [1]}, two, program("a", **MISSING), program("b"))
    assert somebody.startswith("1 worker of 2 can't start claude-code for subtask 1 (a: claude is not there)")


def test_workers_that_a_subtask_can_not_come_to_do_not_count() -> None:
    gpu = Need("claude-code", None, frozenset({"gpu"}))
    workers = [worker("a"), worker("b", "gpu", "large")]
    assert said({gpu: [1]}, workers, program("a", **MISSING), program("b")) == []


def test_a_program_that_does_not_tell_its_version_is_tried() -> None:
    assert said({CLAUDE: [1]}, [worker("a")], program("a", version=None, supported=False)) == []


def test_a_large_fleet_is_not_listed() -> None:
    names = [f"w{number}" for number in range(9)]
    [words] = said({CLAUDE: [1]}, [worker(name) for name in names], *(program(name, **MISSING) for name in names))
    assert "w2: claude is not there; and 6 more)" in words
    assert "w3" not in words


def test_a_slow_program_holds_up_nobody_and_is_told_when_it_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.advertising.PATIENCE_SECONDS", 0.0)
    gate = tmp_path / "gate"
    stand_in(tmp_path, f"until [ -e {gate} ]; do sleep 0.02; done")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    advertising, wanted = Advertising(load_settings()), [("claude-code", None)]
    assert [one["looking"] for one in advertising.answer(wanted)] == [True]
    gate.touch()
    told = wait_until(lambda: [one for one in advertising.answer(wanted) if not one["looking"]], "it has answered")
    assert [(one["version"], one["supported"]) for one in told] == [("2.1.330", True)]


def test_a_program_at_a_path_is_looked_for_and_not_run(tmp_path: Path) -> None:
    file = stand_in(tmp_path, f"touch {tmp_path}/ran")
    here, elsewhere = (look_for("claude-code", path, load_settings()) for path in (str(file), "/nowhere/claude"))
    assert (here.found, here.supported, elsewhere.found) == (True, True, False)
    assert not (tmp_path / "ran").exists()


def stand_in(folder: Path, does: str) -> Path:
    file = folder / "claude"
    file.write_text(f'#!/bin/bash\n{does}\necho "2.1.330 (Claude Code)"\n')
    file.chmod(0o755)
    return file
