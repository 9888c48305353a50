"""`orchestrator plan GOAL`, from the question to the merged branch, on a local stack with an agent that has its answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.planner_agent import PlannerFolder
from tests.support.plans import subtask
from tests.support.repositories import git, new_repository
from tests.support.services import open_temporary_folder
from tests.support.terminal import Terminal

pytestmark = pytest.mark.stack

GOAL = "Add a file for each part"
GOOD: dict[str, Any] = {
    "title": "Three parts",
    "group_checks": {"1": "test -f 1.txt -a -f 2.txt"},
    "subtasks": [
        subtask(1, parallel_group=1, files=["1.txt"], estimated_duration_minutes=5),
        subtask(2, parallel_group=1, files=["2.txt"]),
        subtask(3, parallel_group=2, title="Run tests", depends_on=[1, 2], check="test -f 3.txt"),
    ],
}
SHELL = {"name": "shell", "command": "touch /tmp/smuggled"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One folder and one state folder for all: a database takes a second to make."""
    one = open_temporary_folder("orchestrator-plan-")
    yield one
    shutil.rmtree(one, ignore_errors=True)


@pytest.fixture
def planner(tmp_path: Path) -> PlannerFolder:
    return PlannerFolder(tmp_path / "planner")


@pytest.fixture
def terminal(folder: Path, planner: PlannerFolder, tmp_path: Path) -> Iterator[Terminal]:
    """Stands in a repository of the test's own, on branch main."""
    one = Terminal(new_repository(tmp_path / "repository"), folder / "state", planner.environment)
    yield one
    one.close()


def branches(terminal: Terminal) -> list[str]:
    return git(terminal.folder, "branch", "--format=%(refname:short)").split()


def test_a_good_answer_becomes_a_file_that_says_the_same_and_can_be_run(
    terminal: Terminal, planner: PlannerFolder
) -> None:
    planner.answers(GOOD)
    said = terminal.run("plan", GOAL, "--agent", "planner", "--max-parallel", "2")
    assert "Three parts: 3 subtasks in 2 groups, valid." in said
    assert "check of group 1: test -f 1.txt -a -f 2.txt" in said
    assert "orchestrator run plan.yaml" in said
    text = (terminal.folder / "plan.yaml").read_text()
    assert text.startswith(f"# A plan for: {GOAL}\n# Proposed by planner on ")
    assert "for $0.25 · 10 tokens (job " in text
    assert "repo: .\n" in text
    shown = json.loads(terminal.run("validate", "plan.yaml", "--json"))
    assert [[one["subtask_id"] for one in group["subtasks"]] for group in shown["groups"]] == [[1, 2], [3]]
    assert shown["max_parallel_agents"] == 2
    [prompt] = planner.prompts()
    assert GOAL in prompt
    assert "You may only read." in prompt
    assert branches(terminal) == ["main"], "a job that may only read leaves nothing in the repository"
    assert re.search(r"job \w{12}: completed · 3 of 3", terminal.run("run", "plan.yaml"))


def test_two_answers_with_faults_are_followed_by_questions_that_name_them(
    terminal: Terminal, planner: PlannerFolder
) -> None:
    smuggled = {**GOOD, "subtasks": [subtask(1, parallel_group=1, agent=SHELL), subtask(1, parallel_group=1)]}
    planner.answers(f"Sure:\n```json\n{json.dumps(smuggled)[:-2]}", smuggled, f"Now:\n```json\n{json.dumps(GOOD)}\n```")
    said = terminal.run("plan", GOAL, "--agent", "planner", "--json")
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    jobs = [line["job_id"] for line in lines if line["type"] == "submitted"]
    proposal = lines[-1]
    assert (proposal["type"], proposal["file"], proposal["job_ids"], proposal["notes"]) == (
        "proposal",
        "plan.yaml",
        jobs,
        [],
    )
    assert (proposal["spent"]["cost_usd"], proposal["spent"]["tokens"]) == (0.75, 30)
    assert len(jobs) == 3
    assert proposal["plan"]["title"] == "Three parts"
    first, second, third = planner.prompts()
    assert "refused" not in first.split("## The form")[0].split("are refused.")[0]
    assert "The answer's JSON breaks off before its end." in second
    assert "`subtasks[0].agent`: `agent` is not the proposal's to say." in third
    assert "`subtasks[1].subtask_id`: The id 1 is used twice" in third
    assert "touch /tmp/smuggled" in third


def test_three_answers_with_faults_end_with_1_and_words(terminal: Terminal, planner: PlannerFolder) -> None:
    planner.answers(*[{**GOOD, "defaults": {"agent": SHELL, "permissions": "full"}}] * 3)
    said = terminal.run("plan", GOAL, "--agent", "planner", "--run", "--yes", code=1)
    assert "the proposal: defaults: `defaults` is not the proposal's to say." in said
    assert "error: planner was asked 3 times, and proposed no plan" in said
    kept = re.search(r"orchestrator export (\w{12})", said)
    assert kept is not None
    exported = json.loads(terminal.run("export", kept[1]))
    assert json.loads(exported["subtasks"][0]["result"])["defaults"]["agent"] == SHELL
    assert not (terminal.folder / "plan.yaml").exists()
    assert len(planner.prompts()) == 3
    assert branches(terminal) == ["main"]


def test_run_goes_on_to_the_merged_branch_with_testing_apart(terminal: Terminal, planner: PlannerFolder) -> None:
    together = {**GOOD, "subtasks": [{**one, "parallel_group": 1} for one in GOOD["subtasks"]]}
    planner.answers(together)
    said = terminal.run("plan", GOAL, "--agent", "planner", "--output", "sub.yaml", "--run", "--yes")
    assert "Subtask 3 is a testing subtask: it has a group of its own after group 1." in said
    assert "group 1  completed · 2 subtasks" in said
    assert "group 2  completed · 1 subtask" in said
    [branch] = [name for name in branches(terminal) if name != "main"]
    files = git(terminal.folder, "ls-tree", "--name-only", branch).split()
    assert files == ["1.txt", "2.txt", "3.txt", "README"]


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        (b"y\n", 0, ": completed · 3 of 3"),
        (b"\n", 0, "Not run. To run it: orchestrator run"),
        (b"\x03", 130, "Not run."),
    ],
    ids=["yes", "no", "ctrl-c"],
)
def test_on_a_terminal_run_asks_first(
    terminal: Terminal, planner: PlannerFolder, keys: bytes, code: int, said: str
) -> None:
    planner.answers(GOOD)
    keyboard, stdin = os.openpty()
    try:
        process = terminal.start("plan", GOAL, "--agent", "planner", "--run", stdin=stdin)
        terminal.await_question(process, "[y/N]")
        if keys == b"\x03":  # the terminal is not the program's own, so that it turns no key into a signal
            process.send_signal(signal.SIGINT)
        else:
            os.write(keyboard, keys)
        assert said in terminal.end_of(process, code=code)
    finally:
        os.close(keyboard)
        os.close(stdin)
    assert (len(branches(terminal)) == 2) == (keys == b"y\n")


def test_stdout_gets_the_plan_and_nothing_else(terminal: Terminal, planner: PlannerFolder) -> None:
    planner.answers(GOOD)
    (terminal.folder / "goal.md").write_text(f"{GOAL}\n\nEach of them.\n")
    process = terminal.start("plan", "@goal.md", "--agent", "planner", "-o", "-")
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "Propose a plan completed" in err
    (terminal.folder / "piped.yaml").write_text(out)
    assert json.loads(terminal.run("validate", "piped.yaml", "--json"))["valid"]
    assert "goal: |-\n  Add a file for each part\n\n  Each of them.\n" in out
    assert f"repo: {terminal.folder}\n" in out


def test_ctrl_c_cancels_the_agent(terminal: Terminal, planner: PlannerFolder) -> None:
    process = terminal.start("plan", GOAL, "--agent", "planner")
    terminal.read_until(process, "#1 Propose a plan starts on")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Cancelling the job" in err
    assert json.loads(terminal.run("status", "--json"))["job"]["status"] == "cancelled"
    assert "Traceback" not in out + err
    assert not (terminal.folder / "plan.yaml").exists()


def test_an_agent_that_fails_ends_with_1_and_its_words(terminal: Terminal, planner: PlannerFolder) -> None:
    said = terminal.run("plan", GOAL, "--agent", "planner", "--timeout", "0.5s", code=1)
    assert "its time limit" in said
    assert "See why: orchestrator logs" in said
    assert len(planner.prompts()) == 2, "an attempt that fails is tried once more"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["", "--agent", "planner"], "error: The goal is empty."),
        (["@nowhere.md", "--agent", "planner"], "can't be read from nowhere.md: No such file"),
        ([GOAL, "--agent", "planer"], 'did you mean "planner"?'),
        ([GOAL, "--agent", "shell"], 'the key "command" is missing'),
        ([GOAL, "--agent", "planner", "--repo", "nowhere"], "There is no repository at nowhere."),
        ([GOAL, "--agent", "planner", "--repo", ".."], "is not a git repository"),
        ([GOAL, "--agent", "planner", "--base", "nope"], "nope"),
        ([GOAL, "--agent", "planner", "--output", "README"], "There is a file README already."),
        ([GOAL, "--agent", "planner", "--output", "no/plan.yaml"], "There is no folder no."),
        ([GOAL, "--agent", "planner", "--timeout", "soon"], "'soon' is no duration"),
        ([GOAL, "--agent", "planner", "--run"], "there is nobody to ask"),
        ([GOAL, "--agent", "planner", "--output", "-", "--json"], "stdout is for the plan"),
    ],
)
def test_what_can_be_said_before_is_said_before(
    terminal: Terminal, planner: PlannerFolder, words: list[str], said: str, tmp_path: Path
) -> None:
    alone = Terminal(terminal.folder, tmp_path / "never", planner.environment)
    told = alone.run("plan", *words, code=2)
    assert said in " ".join(told.replace("│", " ").split())
    assert not (tmp_path / "never").exists()


def test_an_empty_repository_is_told_before_anything_starts(planner: PlannerFolder, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    told = Terminal(empty, tmp_path / "never", planner.environment).run("plan", GOAL, "--agent", "planner", code=2)
    assert "has no commit" in told
    assert not (tmp_path / "never").exists()
