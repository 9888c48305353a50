"""The agents that ship, run as a worker runs them: adapter, real process, supervisor, classification."""

from __future__ import annotations

import json
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.environment import agent_environment
from orchestrator.outcomes import Outcome
from orchestrator.process_tree import find_by_cookie
from orchestrator.supervisor import TIMEOUT, Ending, StopSignal, supervise
from tests.support.fleet import TestFleet
from tests.support.supervision import new_cookie
from workers.agents.protocol import Agent, AgentEnd, AgentEvent, AgentRequest
from workers.agents.scripted import ScriptedAgent
from workers.agents.shell import ShellAgent


@dataclass
class Run:
    """One attempt of an agent, without a queue around it."""

    folder: Path
    attempt_number: int = 1
    timeout_seconds: float | None = 60.0
    cookie: str = field(default_factory=new_cookie)
    lines: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def of(self, agent: Agent[Any], **config: Any) -> tuple[Ending, AgentEnd]:
        state_dir, prompt_file = self.folder / "state", self.folder / "prompt.md"
        state_dir.mkdir(exist_ok=True)
        self.workspace.mkdir(exist_ok=True)
        prompt_file.write_text("Say hello.")
        launch = agent.launch(
            AgentRequest(
                prompt="Say hello.",
                prompt_file=prompt_file,
                workspace=self.workspace,
                state_dir=state_dir,
                config=config,
                title="A title",
                subtask_id=7,
                attempt_number=self.attempt_number,
            )
        )
        events: list[AgentEvent] = []

        def on_line(stream: str, text: str) -> None:
            self.lines.append(text)
            if event := agent.read_line(stream, text):
                events.append(event)

        extra = {"ORCHESTRATOR_PROMPT_FILE": str(prompt_file), "ORCHESTRATOR_SUBTASK": "7", **launch.env}
        ending = supervise(
            launch.argv,
            cwd=self.workspace,
            env=agent_environment(allow=agent.environment, extra=extra, cookie=self.cookie),
            timeout_seconds=self.timeout_seconds,
            idle_timeout_seconds=None,
            kill_grace_seconds=0.3,
            on_line=on_line,
            stop=StopSignal(),
            cookie=self.cookie,
            stdin_file=launch.stdin_file,
        )
        return ending, agent.classify(ending, events)

    def script(self, *steps: dict[str, Any]) -> AgentEnd:
        return self.of(ScriptedAgent(), script=list(steps))[1]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_shell_finds_its_prompt_and_the_end_of_stdout_is_its_result(run: Run) -> None:
    _, end = run.of(ShellAgent(), command='cat "$ORCHESTRATOR_PROMPT_FILE" > said.txt; echo noise >&2; echo made it')
    assert (end.outcome, end.result, end.error) == (Outcome.COMPLETED, "made it", None)
    assert (run.workspace / "said.txt").read_text() == "Say hello."


@pytest.mark.parametrize("command", ["echo why >&2; exit 3", "echo why; false | cat", "echo why; echo $unset_name"])
def test_shell_fails_with_its_last_lines(run: Run, command: str) -> None:
    _, end = run.of(ShellAgent(), command=command)
    assert end.outcome is Outcome.FAILED
    assert "why" in (end.error or "")
    assert "exit code" in (end.error or "")


def test_shell_keeps_the_tail_of_a_long_output_only(run: Run) -> None:
    _, end = run.of(ShellAgent(), command="seq 100000")
    assert (end.result or "").endswith("99999\n100000")
    assert len(end.result or "") < 5000


def test_shell_is_there_and_says_its_version() -> None:
    version = ShellAgent().version()
    assert version.found
    assert version.supported
    assert version.version


def test_a_script_writes_prints_and_reports(run: Run) -> None:
    end = run.script(
        {"write": "models/user.py", "content": "class User: ...\n"},
        {"append": "models/user.py", "content": "# more\n"},
        {"write": "gone.txt"},
        {"delete": "gone.txt"},
        {"print": "to stdout"},
        {"stderr": "to stderr"},
        {"usage": {"input_tokens": 10}, "cost_usd": 0.5},
        {"session": "session-1"},
        {"result": "All there."},
    )
    assert end == AgentEnd(
        Outcome.COMPLETED, result="All there.", usage={"input_tokens": 10}, cost_usd=0.5, session_id="session-1"
    )
    assert (run.workspace / "models/user.py").read_text() == "class User: ...\n# more\n"
    assert not (run.workspace / "gone.txt").exists()
    assert set(run.lines) >= {"to stdout", "to stderr"}


def test_a_script_commits(run: Run) -> None:
    run.workspace.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=run.workspace, check=True)
    assert run.script({"write": "a.txt"}, {"commit": "Add a"}).outcome is Outcome.COMPLETED
    log = subprocess.run(["git", "log", "--format=%s"], cwd=run.workspace, check=True, capture_output=True, text=True)
    assert log.stdout == "Add a\n"


@pytest.mark.parametrize(
    ("step", "outcome", "words"),
    [
        ({"fail": "not today"}, Outcome.FAILED, "not today"),
        ({"fail": 3}, Outcome.FAILED, "exit code 3, without reporting its end"),
        ({"fail": 0}, Outcome.FAILED, "exit code 0, without reporting its end"),
        ({"exit_by_signal": "KILL"}, Outcome.FAILED, "signal 9"),
        ({"exit_by_signal": "TERM"}, Outcome.FAILED, "signal 15"),
        ({"end": "auth_error", "error": "no key"}, Outcome.AUTH_ERROR, "no key"),
        ({"end": "turn_limit"}, Outcome.TURN_LIMIT, "turn_limit"),
        ({"write": "/proc/nowhere"}, Outcome.FAILED, "exit code 1"),
    ],
)
def test_a_script_ends_in_every_way(run: Run, step: dict[str, Any], outcome: Outcome, words: str) -> None:
    end = run.script(step, {"write": "after.txt"})
    assert end.outcome is outcome
    assert words in (end.error or "")
    assert not (run.workspace / "after.txt").exists()


def test_a_script_asks_for_patience(run: Run) -> None:
    end = run.script({"end": "rate_limited", "retry_after_seconds": 30})
    assert (end.outcome, end.retry_after_seconds) == (Outcome.RATE_LIMITED, 30)


@pytest.mark.parametrize(
    ("attempt_number", "outcome"), [(1, Outcome.FAILED), (2, Outcome.COMPLETED), (3, Outcome.TURN_LIMIT)]
)
def test_a_script_differs_by_attempt(tmp_path: Path, attempt_number: int, outcome: Outcome) -> None:
    step = {"on_attempt": {1: [{"fail": "first"}], "else": [{"end": "turn_limit"}], 2: [{"print": "second"}]}}
    assert Run(tmp_path, attempt_number).script(step).outcome is outcome


def test_a_script_survives_a_database_that_sorts_its_keys(run: Run) -> None:
    step = dict(sorted({"write": "a.txt", "content": "x"}.items()))
    assert list(step) == ["content", "write"]
    assert run.script(step).outcome is Outcome.COMPLETED


def test_a_script_hangs_and_ignores_term_until_it_is_killed(run: Run) -> None:
    run.timeout_seconds = 1.0
    ending, _ = run.of(ScriptedAgent(), script=[{"ignore_sigterm": True}, {"hang": True}])
    assert (ending.stopped, ending.signal) == (TIMEOUT, 9)


def test_a_script_leaves_a_process_behind_which_does_not_survive_it(run: Run) -> None:
    ending, end = run.of(ScriptedAgent(), script=[{"spawn": 600}])
    assert (ending.stopped, end.outcome) == (None, Outcome.COMPLETED)
    assert find_by_cookie(run.cookie) == []


def test_a_script_floods_and_writes_what_is_no_text(run: Run) -> None:
    ending, end = run.of(ScriptedAgent(), script=[{"flood": 5_000_000}, {"invalid_utf8": True}])
    assert end.outcome is Outcome.COMPLETED
    assert sum(line.count("x") for line in run.lines) >= 5_000_000
    assert any("\N{REPLACEMENT CHARACTER}" in line for line in run.lines)
    assert ending.output.total_bytes > 5_000_000


def test_a_script_logs_when_it_ran_also_when_it_is_terminated(run: Run) -> None:
    log = run.folder / "intervals"
    run.timeout_seconds = 1.0
    run.script({"log_interval": str(log)}, {"hang": True})
    start, end = (json.loads(line) for line in log.read_text().splitlines())
    assert (start["what"], end["what"], start["token"], start["subtask"]) == ("start", "end", run.cookie, "7")
    assert start["at"] < end["at"]


def test_a_script_waits_for_a_file(run: Run) -> None:
    go = run.folder / "go"
    go.touch()
    assert run.script({"wait_for": str(go)}).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"prnt": "x"}, "is no step"),
        ({"print": "x", "write": "y"}, "is no step"),
        ({"print": "x", "content": "y"}, 'has no key "content"'),
        ({"sleep": "long"}, "can't be the value of sleep"),
        ({"end": "splendid"}, "is no outcome"),
        ({"on_attempt": {1: "fail"}}, "is no list of steps"),
        ({"on_attempt": {1: [{"nothing": 1}]}}, "is no step"),
    ],
)
def test_a_wrong_step_is_refused_before_anything_runs(run: Run, step: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        run.script(step)


def test_the_example_of_the_docs_is_an_agent(run: Run) -> None:
    names: dict[str, Any] = {"__name__": "linter_of_the_docs"}
    exec(of_the_docs("python"), names)
    _, end = run.of(names["LinterAgent"](), rule="hello")
    assert (end.outcome, end.result) == (Outcome.COMPLETED, "Say FIXED.")
    _, end = run.of(names["LinterAgent"](), rule="nowhere in the prompt")
    assert (end.outcome, "without a word" in (end.error or "")) == (Outcome.FAILED, True)


@pytest.mark.stack
def test_the_example_of_the_docs_comes_with_a_package(fleet: TestFleet, tmp_path: Path) -> None:
    """It is installed by its entry point alone, for the worker and for whoever submits."""
    site = tmp_path / "site"
    metadata = site / "linter_agent-1.0.dist-info"
    metadata.mkdir(parents=True)
    entry_points = tomllib.loads(of_the_docs("toml"))["project"]["entry-points"]
    written = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in entry_points.items()
    )
    (metadata / "entry_points.txt").write_text(written)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: linter-agent\nVersion: 1.0\n")
    (site / "linter_agent.py").write_text(of_the_docs("python"))
    agent = {"name": "linter", "rule": "the job"}
    subtask = {"subtask_id": 1, "title": "Look", "parallel_group": 1, "agent": agent}
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"title": "Lint", "subtasks": [subtask]}))
    fleet.start_dispatcher()
    fleet.start_worker(PYTHONPATH=str(site))
    done = fleet.program("submit", str(plan), "--wait", "--json", PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = fleet.rows("SELECT agent, status, result FROM subtasks")
    assert (row["agent"], row["status"]) == ("linter", "completed")
    assert "FIXED" in row["result"]


def of_the_docs(language: str) -> str:
    """The page's only piece of code in that language."""
    page = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
    section = page.split("## An agent of your own", 1)[1]
    return section.split(f"```{language}\n", 1)[1].split("```", 1)[0]
