"""The agent `aider`: one message an attempt. It edits files, and runs no commands.

    agent: {name: aider, model: sonnet}

Keys come from the worker's environment (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, …). It tells no end of its own: what it
prints and exit code 0 have to do, and it says 0 on an error of the provider too. Measured with 0.86.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from workers.agents.program import ProgramAgent, ProgramConfig, json_lines, summed, text_event
from workers.agents.protocol import (
    AgentEnd,
    AgentEvent,
    AgentRequest,
    Capabilities,
    Counted,
    EventKind,
    Launch,
    failure_in_words,
    last_data,
)
from workers.agents.provider import ANTHROPIC, DEEPSEEK, GEMINI, OPENAI, OPENROUTER, outcome_of_words

_PROVIDER_ERROR: Final = re.compile(r"litellm\.(?:\w+\.)*(?P<name>\w+(?:Error|Exception|Unavailable|Timeout))\b")
_RETRYING: Final = re.compile(r"Retrying in (?P<seconds>[\d.]+) seconds")
_PATIENCE_SECONDS: Final = 2.0
"""Its own waits double; a longer one is the queue's, where it holds no slot."""


class AiderAgent(ProgramAgent[ProgramConfig]):
    name = "aider"
    config_model = ProgramConfig
    program = "aider"
    oldest_version = (0, 86)
    capabilities = Capabilities(tokens=Counted.PER_RUN, cost=Counted.PER_RUN)
    environment = (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_API_BASE", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        *("DEEPSEEK_API_KEY", "OLLAMA_API_BASE"),
    )

    providers = (ANTHROPIC, OPENAI, GEMINI, OPENROUTER, DEEPSEEK, Provider("ollama", (), "OLLAMA_API_BASE"))

    def launch(self, request: AgentRequest) -> Launch:
        state = request.state_dir / "aider"
        state.mkdir(exist_ok=True)
        argv = [self.command(request), "--message-file", str(request.prompt_file), "--yes-always"]
        argv += ["--no-auto-commits", "--no-gitignore", "--no-suggest-shell-commands", "--no-show-release-notes"]
        argv += ["--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-pretty", "--no-stream"]
        argv += ["--no-detect-urls", "--map-tokens", "0"]  # the map's cache would be written into the workspace
        for kind in ("chat", "input"):
            argv += [f"--{kind}-history-file", str(state / f"{kind}.history")]
        argv += ["--analytics-log", str(state / "analytics.jsonl")]
        if request.permissions == "read-only":
            argv += ["--chat-mode", "ask"]
        if model := self.config(request).model:
            argv += ["--model", model]
        return Launch(argv, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        if _PROVIDER_ERROR.search(line):
            return text_event(EventKind.TERMINAL, line, {"error": line})
        if (wait := _RETRYING.search(line)) and float(wait["seconds"]) > _PATIENCE_SECONDS:
            return text_event(EventKind.GIVE_UP, line)
        if line.startswith("Tokens: "):  # after each answer: the error before it was overcome
            return text_event(EventKind.TERMINAL, line, {"answered": True})
        return None

    def read_files(self, request: AgentRequest) -> Sequence[AgentEvent]:
        events = []
        for data in json_lines(request.state_dir / "aider" / "analytics.jsonl"):
            match data:
                case {
                    "event": "message_send",
                    "properties": {"prompt_tokens": int(sent), "completion_tokens": int(got)},
                }:
                    cost = data["properties"].get("cost")
                    usage = {"input_tokens": sent, "output_tokens": got}
                    events.append(AgentEvent(EventKind.USAGE, data={"usage": usage, "cost_usd": float(cost or 0)}))
        return events

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        counted = [event.data for event in events if event.kind is EventKind.USAGE]
        cost_usd = sum(data["cost_usd"] for data in counted)
        about: dict[str, Any] = {"usage": summed(data["usage"] for data in counted), "cost_usd": cost_usd or None}
        terminal = last_data(events, EventKind.TERMINAL)
        if error := terminal.get("error"):
            return AgentEnd(outcome_of_words(error), error=error, **about)
        if ending.exit_code != 0 or not terminal:
            how = "" if terminal else "without an answer of its model"
            return AgentEnd(Outcome.FAILED, error=failure_in_words(ending, how), **about)
        return AgentEnd(Outcome.COMPLETED, result=ending.output.last_lines(), **about)
