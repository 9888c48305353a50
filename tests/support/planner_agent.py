"""The agent `planner`: answers questions for a plan with given texts, and keeps the prompts that it saw.

A scripted agent that can be held to any permissions. `PLANNER_FOLDER`, in the worker's environment, has `answer-1`,
`answer-2`, …: what it says to the first question, the second, …; it leaves the prompts there as `prompt-1`, …. A subtask
that may edit writes the file that is called like its id. Without an answer it hangs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestrator.agent_names import register_agent
from tests.support.command_line import ROOT_OF_THE_PROJECT
from workers.agents.program import ANY_CEILING
from workers.agents.protocol import AgentRequest, Launch
from workers.agents.scripted import ScriptedAgent

MODULE: Final = "tests.support.planner_agent"


@register_agent("planner")
class PlannerAgent(ScriptedAgent):
    permissions = ANY_CEILING

    def launch(self, request: AgentRequest) -> Launch:
        script = _answer(request) if request.permissions == "read-only" else _work(request)
        return super().launch(
            AgentRequest(**{**vars(request), "config": {"script": [*request.config.get("script", ()), *script]}})
        )


def _answer(request: AgentRequest) -> list[dict[str, Any]]:
    folder = Path(os.environ["PLANNER_FOLDER"])
    number = len(list(folder.glob("prompt-*"))) + 1
    (folder / f"prompt-{number}").write_text(request.prompt)
    answer = folder / f"answer-{number}"
    if not answer.exists():
        return [{"print": "thinking"}, {"hang": True}]
    usage = {"usage": {"input_tokens": 10}, "cost_usd": 0.25}
    return [usage, {"result": answer.read_text()}]


def _work(request: AgentRequest) -> list[dict[str, Any]]:
    return [{"write": f"{request.subtask_id}.txt", "content": f"{request.title}\n"}]


class PlannerFolder:
    """What the planner answers, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PLANNER_FOLDER": str(self.folder),
            "ORCHESTRATOR_AGENT_MODULES": MODULE,
            "PYTHONPATH": str(ROOT_OF_THE_PROJECT),
        }

    def answers(self, *texts: str | Mapping[str, Any]) -> None:
        """From now on these, as text or as JSON."""
        for old in (*self.folder.glob("answer-*"), *self.folder.glob("prompt-*")):
            old.unlink()
        for number, text in enumerate(texts, start=1):
            written = text if isinstance(text, str) else json.dumps(text)
            (self.folder / f"answer-{number}").write_text(written)

    def prompts(self) -> list[str]:
        return [file.read_text() for file in sorted(self.folder.glob("prompt-*"))]
