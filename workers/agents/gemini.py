"""The agent `gemini`: Google's command line, one headless run an attempt.

    agent: {name: gemini, model: gemini-2.5-pro, max_turns: 40}

The key comes from the worker's environment (`GEMINI_API_KEY`), and so does another address of the provider
(`GOOGLE_GEMINI_BASE_URL`). What is written here of its output was measured with 0.61.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from orchestrator.text import first_line
from workers.agents.program import SHOWN_CHARACTERS, JsonLinesAgent, ProgramConfig, text_event
from workers.agents.protocol import (
    AgentEnd,
    AgentEvent,
    AgentRequest,
    Capabilities,
    Counted,
    EventKind,
    Launch,
    ending_in_words,
    failure_in_words,
    last_data,
)
from workers.agents.provider import outcome_of_status, outcome_of_words

_MODES: Final = {"read-only": "plan", "edit": "auto_edit", "full": "yolo"}
_TURN_LIMIT_EXIT_CODE: Final = 53
_NO_SESSION_EXIT_CODE: Final = 42
_RETRYING: Final = re.compile(
    r"Attempt (?P<number>\d+) failed(?: with status (?P<status>\d{3}))?.*Retrying", re.IGNORECASE
)
_TRIES: Final = 2
"""Of the program's own, which go on for longer than a slot should be held."""


class GeminiConfig(ProgramConfig):
    max_turns: int | None = Field(None, ge=1, description="model calls before it ends as turn_limit")


class GeminiAgent(JsonLinesAgent[GeminiConfig]):
    name = "gemini"
    config_model = GeminiConfig
    program = "gemini"
    oldest_version = (0, 60)
    capabilities = Capabilities(resume=True, turn_limit=True, tokens=Counted.PER_RUN)
    # Its folder has the name of the workspace's last part, which is that of every workspace.
    session_files = ("gemini/.gemini/tmp/*/chats/session-*-{session_id:.8}.jsonl",)
    environment = ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL")

    providers = (Provider("gemini", ("GEMINI_API_KEY",), "GOOGLE_GEMINI_BASE_URL"),)

    def __init__(self) -> None:
        self._calls: dict[str, Mapping[str, Any]] = {}
        """Of tools, that have not ended."""

    def launch(self, request: AgentRequest) -> Launch:
        config = self.config(request)
        home = request.state_dir / "gemini"
        (home / ".gemini").mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        settings["privacy"] = {"usageStatisticsEnabled": False}
        settings["general"] = {"disableAutoUpdate": True}
        if config.max_turns is not None:
            settings["model"] = {"maxSessionTurns": config.max_turns}
        (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
        argv = [self.command(request), "--output-format", "stream-json", "--skip-trust"]
        argv += ["--approval-mode", _MODES[request.permissions]]
        for flag, value in (("--model", config.model), ("--resume", request.session_id)):
            if value is not None:
                argv += [flag, value]
        env = {"GEMINI_CLI_HOME": str(home), "GEMINI_CLI_NO_RELAUNCH": "true", "NO_COLOR": "1"}
        return Launch(argv, env, stdin_file=request.prompt_file)

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        """Its own tries are told on stderr, and nowhere else."""
        if stream == "stderr" and (tried := _RETRYING.search(line)):
            if int(tried["number"]) >= _TRIES:
                return text_event(EventKind.GIVE_UP, line, {"status": tried["status"], "error": line})
            if tried["status"] and outcome_of_status(int(tried["status"])) is Outcome.RATE_LIMITED:
                return text_event(EventKind.THROTTLED, line)
        return super().read_line(stream, line)

    def event(self, data: Mapping[str, Any]) -> AgentEvent | None:
        match data["type"]:
            case "init":
                return AgentEvent(
                    EventKind.SESSION, data={"session_id": data["session_id"], "model": data.get("model")}
                )
            case "message" if data["role"] == "assistant":
                return text_event(EventKind.TEXT, data["content"], {"part": data["content"]})
            case "tool_use":
                self._calls[data["tool_id"]] = data
                return text_event(EventKind.TOOL, data["tool_name"])
            case "tool_result":
                return self._tool_end(data)
            case "error":
                return text_event(EventKind.TEXT, data["message"], {"error": data["message"]})
            case "result":
                return text_event(EventKind.TERMINAL, data["status"], {**data, "error": _words_of(data.get("error"))})
        return None

    def _tool_end(self, data: Mapping[str, Any]) -> AgentEvent | None:
        """Refused it is by a rule of the mode, or because the mode has no shell. Any other error is the tool's own."""
        call = self._calls.pop(data["tool_id"])
        if data["status"] == "success":
            return AgentEvent(EventKind.TOOL_END, data={"refused": None})
        match data["error"]["type"], call["tool_name"]:
            case "policy_violation", _:
                why = first_line(data["error"]["message"])
            case "tool_not_registered", "run_shell_command":
                why = "it has no shell then"
            case _:
                return None
        asked = call["parameters"].get("command") or call["parameters"].get("file_path") or call["tool_name"]
        refused = f"`{first_line(asked)[:SHOWN_CHARACTERS]}` ({why})"
        return text_event(EventKind.TOOL_END, refused, {"refused": refused})

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        result, given_up = last_data(events, EventKind.TERMINAL), last_data(events, EventKind.GIVE_UP)
        about: dict[str, Any] = {
            "result": "".join(event.data["part"] for event in events if "part" in event.data) or None,
            "usage": _usage(result),
            "model": last_data(events, EventKind.SESSION).get("model"),
            "session_id": last_data(events, EventKind.SESSION).get("session_id"),
            "refused": last_data(events, EventKind.TOOL_END).get("refused"),
        }
        if given_up and not result:
            words, status = given_up["error"], given_up["status"]
            outcome = outcome_of_status(int(status)) if status else Outcome.PROVIDER_UNAVAILABLE
            return AgentEnd(outcome, error=words, **about)
        if ending.exit_code == _TURN_LIMIT_EXIT_CODE:
            return AgentEnd(Outcome.TURN_LIMIT, error="The agent reached its limit of turns.", **about)
        told = next((event.data["error"] for event in reversed(events) if event.data.get("error")), None)
        if result.get("status") == "success" and ending.exit_code == 0:
            return AgentEnd(Outcome.COMPLETED, **about)
        if result.get("status") == "success":
            words = f"The agent reported success, but ended with {ending_in_words(ending)}."
            return AgentEnd(Outcome.FAILED, error=words, **about)
        about["session_unknown"] = ending.exit_code == _NO_SESSION_EXIT_CODE
        words = told or failure_in_words(ending, "without a result line" if not result else "")
        # What its provider said stands in its last lines only, where it came to no result.
        return AgentEnd(outcome_of_words(words), error=words, **about)


def _words_of(error: Any) -> str | None:
    """Of a result: the message of an object that has a type and one, as a rule."""
    words = error.get("message") if isinstance(error, Mapping) else error
    return None if words is None else str(words)


def _usage(result: Mapping[str, Any]) -> dict[str, int] | None:
    stats = result.get("stats")
    if not isinstance(stats, Mapping):
        return None
    kinds = {"input_tokens": "input", "output_tokens": "output_tokens", "cache_read_tokens": "cached"}
    return {ours: int(stats.get(theirs) or 0) for ours, theirs in kinds.items()}
