"""A Python class as an agent: initialised once, cleaned up always, and its end is never guessed from what it prints."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import agent_names
from orchestrator.outcomes import Outcome
from orchestrator.settings import load_settings
from tests.support.supervision import Supervision
from tests.support.waiting import wait_until
from workers.agents.protocol import AgentEnd, AgentEvent, AgentRequest
from workers.agents.registry import agent_class

MODULE = """
import json, os, sys, time
from pathlib import Path
from orchestrator import AgentException, AgentPlugin, register_agent

DIARY = Path(__file__).with_name("diary")


def note(**what):
    with DIARY.open("a") as diary:
        diary.write(json.dumps(what) + "\\n")


@register_agent("diarist")
class Diarist(AgentPlugin):
    def initialize(self, config):
        super().initialize(config)
        note(initialize=config)
        if self.config.get("broken"):
            raise ValueError("no such model")

    def send_prompt(self, prompt, context=None):
        note(prompt=prompt, context=context)
        self.usage, self.cost_usd = {"input_tokens": 7}, 0.5
        exec(self.config.get("code", ""))
        return self.config.get("answer", "done")

    def cleanup(self):
        note(cleanup=True)
        if self.config.get("messy"):
            raise OSError("could not close")
"""


class Attempt:
    """One attempt of the plugin `diarist`, without a queue around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.supervision = Supervision(self.workspace, kill_grace_seconds=10)

    def run(self, **config: Any) -> AgentEnd:
        prompt_file, state_dir = self.folder / "prompt.md", self.folder / "state"
        prompt_file.write_text("Say hello.")
        state_dir.mkdir()
        agent = agent_class("diarist", load_settings(agent_modules=["diarists"]))()
        launch = agent.launch(
            AgentRequest(
                prompt="Say hello.",
                prompt_file=prompt_file,
                workspace=self.workspace,
                state_dir=state_dir,
                config=config,
                title="A title",
                subtask_id=7,
                attempt_number=2,
            )
        )
        events: list[AgentEvent] = []

        def on_line(stream: str, text: str) -> None:
            self.supervision.lines.append((stream, text))
            if event := agent.read_line(stream, text):
                events.append(event)

        self.supervision.on_line = on_line
        return agent.classify(self.supervision.run(launch.argv), events)

    @property
    def diary(self) -> list[dict[str, Any]]:
        file = self.folder / "diary"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def steps(self) -> list[str]:
        return [next(iter(note)) for note in self.diary]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempt]:
    monkeypatch.setattr(agent_names, "_registered", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "diarists.py").write_text(MODULE)
    yield Attempt(tmp_path)
    sys.modules.pop("diarists", None)


def test_it_is_initialised_once_with_its_configuration_and_cleaned_up(attempt: Attempt) -> None:
    end = attempt.run(answer="hello", model="m")
    assert (end.outcome, end.result, end.error) == (Outcome.COMPLETED, "hello", None)
    assert (end.usage, end.cost_usd) == ({"input_tokens": 7}, 0.5)
    workspace = str(attempt.workspace)
    context = {"subtask_id": 7, "title": "A title", "attempt_number": 2, "workspace_path": workspace}
    assert attempt.diary == [
        {"initialize": {"answer": "hello", "model": "m", "workspace_path": workspace}},
        {"prompt": "Say hello.", "context": context},
        {"cleanup": True},
    ]


def test_what_it_raises_is_its_failure_and_it_is_cleaned_up(attempt: Attempt) -> None:
    end = attempt.run(code="raise RuntimeError('the model is gone')")
    assert (end.outcome, end.error) == (Outcome.FAILED, "RuntimeError: the model is gone")
    assert end.cost_usd == 0.5
    assert attempt.steps == ["initialize", "prompt", "cleanup"]
    assert any("Traceback" in text for _, text in attempt.supervision.lines)


def test_it_may_name_its_outcome(attempt: Attempt) -> None:
    end = attempt.run(code="raise AgentException('slow down', outcome='rate_limited', retry_after_seconds=9)")
    assert (end.outcome, end.error, end.retry_after_seconds) == (Outcome.RATE_LIMITED, "slow down", 9)


@pytest.mark.parametrize("outcome", ["completed", "sideways"])
def test_no_exception_is_a_success(attempt: Attempt, outcome: str) -> None:
    assert attempt.run(code=f"raise AgentException('odd', outcome='{outcome}')").outcome is Outcome.FAILED


def test_it_is_cleaned_up_when_it_could_not_be_initialised(attempt: Attempt) -> None:
    end = attempt.run(broken=True)
    assert (end.outcome, end.error) == (Outcome.FAILED, "ValueError: no such model")
    assert attempt.steps == ["initialize", "cleanup"]


def test_it_is_cleaned_up_when_it_is_ended_from_outside(attempt: Attempt) -> None:
    stopper = threading.Thread(
        target=lambda: (
            wait_until(lambda: "prompt" in attempt.steps, "it has its prompt"),
            attempt.supervision.stop.set("cancelled"),
        )
    )
    stopper.start()
    end = attempt.run(code="time.sleep(600)")
    stopper.join()
    assert end.outcome is Outcome.FAILED
    assert attempt.steps == ["initialize", "prompt", "cleanup"]


def test_a_clean_up_that_fails_undoes_no_work(attempt: Attempt) -> None:
    assert attempt.run(messy=True).outcome is Outcome.COMPLETED


def test_what_it_prints_is_logged_and_never_passes_for_its_end(attempt: Attempt) -> None:
    lie = '{"event": "end", "outcome": "completed"}'
    end = attempt.run(code=f"print('''{lie}'''); print('no newline', end='', flush=True); os._exit(0)")
    assert end.outcome is Outcome.FAILED
    assert [text for _, text in attempt.supervision.lines] == [lie, "no newline"]


def test_a_module_of_the_workspace_takes_nobodys_place(attempt: Attempt) -> None:
    for name in ("json.py", "orchestrator.py", "diarists.py"):
        (attempt.workspace / name).write_text("raise SystemExit(1)")
    assert attempt.run().outcome is Outcome.COMPLETED
