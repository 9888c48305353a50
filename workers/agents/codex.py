"""The agent `codex`: OpenAI's command line, one `codex exec` an attempt.

    agent: {name: codex, model: gpt-5.2-codex}

The key comes from the worker's environment (`OPENAI_API_KEY`), and so does another provider's address that speaks the
Responses protocol (`OPENAI_BASE_URL`). What is written here of its output was measured with 0.169.0.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from orchestrator.text import first_line
from workers.agents.program import (
    SHOWN_CHARACTERS,
    UNREADABLE,
    JsonLinesAgent,
    ProgramConfig,
    json_lines,
    said,
    text_event,
    uncached,
)
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
from workers.agents.provider import outcome_of_words

_ENDLESS: Final = "waiting for network"
"""In the program's word on a provider that refuses connections: it asks again for ever."""

_NO_SESSION: Final = "no rollout found for thread"

_KERNELS_REFUSAL: Final = "Read-only file system"
"""Where a command writes outside of what its sandbox lets it. What the sandbox refuses in other words (a socket: `Operation
not permitted`, a name that can't be resolved) fails in the same words without one."""

_PATCH_REJECTED: Final = "patch rejected: "
_EXIT_CODE: Final = re.compile(r"^Process exited with code (\d+)$", re.MULTILINE)

_WAITS: Final = 2
"""So many of those lines, some seconds apart, are more than a moment without a network."""

_FLAGS: Final = {
    "read-only": ("--sandbox", "read-only"),
    "edit": ("--sandbox", "workspace-write"),
    "full": ("--dangerously-bypass-approvals-and-sandbox",),
}
_CONFIGURATION: Final = """\
check_for_update_on_startup = false
model_provider = "worker"
[analytics]
enabled = false
[features]
plugins = false
apps = false
[model_providers.worker]
name = "the worker's provider"
base_url = {base_url}
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
"""
"""Long back-off belongs to the queue, where it holds no slot."""


_NOTHING: Final = {"input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0}


class CodexAgent(JsonLinesAgent[ProgramConfig]):
    name = "codex"
    config_model = ProgramConfig
    program = "codex"
    oldest_version = (0, 160)
    capabilities = Capabilities(resume=True, tokens=Counted.PER_SESSION)
    # Its databases it makes anew from the rollout; its shell snapshots hold the key.
    session_files = ("codex/sessions/*/*/*/rollout-*-{session_id}.jsonl",)
    environment = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION", "OPENAI_PROJECT")

    providers = (Provider("openai", ("OPENAI_API_KEY",), "OPENAI_BASE_URL"),)

    def __init__(self) -> None:
        self._waits = 0

    def launch(self, request: AgentRequest) -> Launch:
        home = _home(request)
        home.mkdir(exist_ok=True)
        base_url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        (home / "config.toml").write_text(_CONFIGURATION.format(base_url=json.dumps(base_url)))
        argv = [self.command(request), "exec", "--json", "--skip-git-repo-check", *_FLAGS[request.permissions]]
        if model := self.config(request).model:
            argv += ["--model", model]
        argv += ["resume", request.session_id, "-"] if request.session_id else ["-"]
        return Launch(argv, {"CODEX_HOME": str(home)}, stdin_file=request.prompt_file)

    def event(self, data: Mapping[str, Any]) -> AgentEvent | None:
        match data["type"]:
            case "thread.started":
                return AgentEvent(EventKind.SESSION, data={"session_id": data["thread_id"]})
            case "turn.completed":
                return AgentEvent(EventKind.TERMINAL, data={"usage": _usage(data["usage"])})
            case "turn.failed":
                return text_event(EventKind.TERMINAL, data["error"]["message"], {"error": data["error"]["message"]})
            case "error" if _ENDLESS in data["message"]:
                self._waits += 1
                kind = EventKind.GIVE_UP if self._waits >= _WAITS else EventKind.TEXT
                return text_event(kind, data["message"], {"error": data["message"]})
            case "item.completed" if data["item"]["type"] == "agent_message":
                return text_event(EventKind.TEXT, data["item"]["text"], {"words": data["item"]["text"]})
            case "item.started" if data["item"]["type"] == "command_execution":
                return text_event(EventKind.TOOL, data["item"]["command"])
        return None

    def read_files(self, request: AgentRequest) -> Sequence[AgentEvent]:
        """The model, and the tokens of a run that did not come to its last line: both of the session so far."""
        told: dict[str, Any] = {}
        calls = _Calls()
        for file in sorted(_home(request).glob("sessions/*/*/*/rollout-*.jsonl")):
            for data in json_lines(file):
                try:
                    calls.read(data)
                    of_line = _told_in_rollout(data)
                except UNREADABLE:
                    continue
                usage = _greater(of_line.get("usage"), told.get("usage"))
                told |= of_line | ({"usage": usage} if usage else {})
        events = [AgentEvent(EventKind.USAGE, data=told)] if told else []
        if calls.refused is not None and request.permissions != "full":
            events.append(text_event(EventKind.TOOL_END, calls.refused, {"refused": calls.refused}))
        return events

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        terminal, counted = last_data(events, EventKind.TERMINAL), last_data(events, EventKind.USAGE)
        about: dict[str, Any] = {
            "result": said(events),
            # A turn that failed before any call was answered has counted nothing.
            "usage": _greater(counted.get("usage"), terminal.get("usage"))
            or (_NOTHING if "error" in terminal else None),
            "model": counted.get("model"),
            "session_id": last_data(events, EventKind.SESSION).get("session_id"),
            "refused": last_data(events, EventKind.TOOL_END).get("refused"),
        }
        error = (terminal or last_data(events, EventKind.GIVE_UP)).get("error")
        if error is not None:
            return AgentEnd(outcome_of_words(error), error=error, **about)
        if not terminal:
            about["session_unknown"] = _NO_SESSION in ending.output.last_lines()
            return AgentEnd(Outcome.FAILED, error=failure_in_words(ending, "without the end of its turn"), **about)
        if ending.exit_code != 0:
            words = f"The agent reported the end of its turn, but ended with {ending_in_words(ending)}."
            return AgentEnd(Outcome.FAILED, error=words, **about)
        return AgentEnd(Outcome.COMPLETED, **about)


class _Calls:
    """What the sandbox has refused, by the session's file. No line on stdout tells it: the program leaves out commands that
    it holds for refused, whose output the model sees all the same."""

    def __init__(self) -> None:
        self._commands: dict[str, str] = {}
        self.refused: str | None = None
        """In words, until a command goes well: an agent that found another way was not kept from its work."""

    def read(self, data: Mapping[str, Any]) -> None:
        match data.get("payload"):
            case {"type": "function_call", "call_id": str(call), "arguments": str(arguments)}:
                self._commands[call] = f"`{_short(json.loads(arguments)['cmd'])}`"
            case {"type": "function_call_output", "call_id": str(call), "output": str(output)}:
                self._end(self._commands.pop(call, "a command"), output)

    def _end(self, command: str, output: str) -> None:
        head, _, printed = output.partition("\nOutput:\n")
        exit_code = _EXIT_CODE.search(head)  # None of one that still runs
        refusal = next((line for line in printed.splitlines() if _KERNELS_REFUSAL in line), None)
        if head.startswith(_PATCH_REJECTED):
            self.refused = f"{command} ({_short(head)})"
        elif exit_code and exit_code[1] == "0":
            self.refused = None
        elif exit_code and refusal:
            self.refused = f"{command} ({_short(refusal)})"


def _short(words: str) -> str:
    return first_line(words)[:SHOWN_CHARACTERS]


def _home(request: AgentRequest) -> Path:
    return request.state_dir / "codex"


def _told_in_rollout(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of the session's file says of the model, or of the tokens so far: a call's are noted before its tool runs
    (since 0.169), and counted once more when that has ended."""
    match data:
        case {"type": "turn_context", "payload": {"model": str(model)}}:
            return {"model": model}
        case {"type": "token_usage_record", "payload": {"thread_token_usage": {**usage}}}:
            return {"usage": _usage(usage)}
        case {"payload": {"type": "token_count", "info": {"total_token_usage": {**usage}}}}:
            return {"usage": _usage(usage)}
    return {}


def _greater(one: Mapping[str, int] | None, other: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """Of a session that goes on after it was killed in a tool, some of the program's counters leave out the call before."""
    known = [usage for usage in (one, other) if usage]
    return max(known, key=lambda usage: sum(usage.values()), default=None)


def _usage(usage: Mapping[Any, Any]) -> dict[str, int]:
    """Its `input_tokens` holds those from the cache too."""
    return uncached(
        {
            "input_tokens": int(usage["input_tokens"]),
            "output_tokens": int(usage["output_tokens"]),
            "cache_read_tokens": int(usage.get("cached_input_tokens") or 0),
            "cache_write_tokens": int(usage.get("cache_write_input_tokens") or 0),
        }
    )
