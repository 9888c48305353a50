"""The agent `claude-code`: Anthropic's command line, one headless run an attempt.

    agent: {name: claude-code, model: sonnet, max_turns: 40}

Keys come from the worker's environment (`ANTHROPIC_API_KEY`, or `CLAUDE_CODE_OAUTH_TOKEN` as `claude setup-token`
prints it), never from the plan: each attempt has a configuration folder of its own, so a login under `~/.claude` is not
seen. What is written here of the program's output was measured with 2.1.330.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from orchestrator.text import first_line
from workers.agents.program import JsonLinesAgent, ProgramConfig, json_lines, summed, text_event
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
from workers.agents.provider import outcome_of_status

_CHANGING_TOOLS: Final = frozenset({"Bash", "Edit", "MultiEdit", "NotebookEdit", "Write"})
_READING_TOOLS: Final = "Glob,Grep,LS,NotebookRead,Read,TodoWrite,WebFetch,WebSearch"

_FLAGS: Final = {
    "read-only": ("--permission-mode", "default", "--tools", _READING_TOOLS),
    "edit": ("--permission-mode", "acceptEdits"),
    "full": ("--permission-mode", "bypassPermissions"),
}
_NO_SESSION: Final = "No conversation found"
_LEFT_OUT: Final = re.compile(r"\b(\w+) is disabled for this session")
_BY_SUBTYPE: Final[Mapping[str, Outcome]] = {
    "error_max_turns": Outcome.TURN_LIMIT,
    "error_max_budget_usd": Outcome.BUDGET_EXCEEDED,
}
_TOKENS: Final[Mapping[str, tuple[str, str]]] = {
    "input_tokens": ("input_tokens", "inputTokens"),
    "output_tokens": ("output_tokens", "outputTokens"),
    "cache_read_tokens": ("cache_read_input_tokens", "cacheReadInputTokens"),
    "cache_write_tokens": ("cache_creation_input_tokens", "cacheCreationInputTokens"),
}
"""Our names, those of `usage`, and those of `modelUsage`."""


class ClaudeCodeConfig(ProgramConfig):
    max_turns: int | None = Field(None, ge=1, description="model calls before it ends as turn_limit")
    max_budget_usd: float | None = Field(None, gt=0, description="before it ends as budget_exceeded, one call over")
    allowed_tools: list[str] = Field(
        default_factory=list, description="allowed besides what `permissions` gives, for instance 'Bash(pytest:*)'"
    )


class ClaudeCodeAgent(JsonLinesAgent[ClaudeCodeConfig]):
    name = "claude-code"
    config_model = ClaudeCodeConfig
    program = "claude"
    oldest_version = (2, 1)
    capabilities = Capabilities(
        resume=True, turn_limit=True, budget=True, tokens=Counted.PER_RUN, cost=Counted.PER_SESSION
    )
    # It finds a session by its id, whatever folder the first run's path has become.
    session_files = ("claude/projects/*/{session_id}.jsonl", "claude/projects/*/{session_id}/**/*")
    environment = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN")

    providers = (
        Provider(
            "anthropic", ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"), "ANTHROPIC_BASE_URL"
        ),
    )

    def __init__(self) -> None:
        self._earlier_calls: frozenset[str] = frozenset()
        """Of the session that is gone on with: the runs before have counted them."""

    def launch(self, request: AgentRequest) -> Launch:
        config = self.config(request)
        self._earlier_calls = frozenset(_calls(request))
        argv = [self.command(request), "-p", "--output-format", "stream-json", "--verbose"]
        argv += _FLAGS[request.permissions]
        for flag, value in (
            ("--model", config.model),
            ("--max-turns", config.max_turns),
            ("--max-budget-usd", config.max_budget_usd),
            ("--allowedTools", ",".join(config.allowed_tools) or None),
            ("--resume", request.session_id),
        ):
            if value is not None:
                argv += [flag, str(value)]
        env = {
            "CLAUDE_CONFIG_DIR": str(_home(request)),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",  # long back-off belongs to the queue, where it holds no slot
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
        }
        if request.permissions == "full":
            env["IS_SANDBOX"] = (
                "1"  # else it refuses root; whether root may do so was decided before (`workers.program_start`)
            )
        return Launch(argv, env, stdin_file=request.prompt_file)

    def event(self, data: Mapping[str, Any]) -> AgentEvent | None:
        """`type` decides; it is not always the first key."""
        match data["type"], data.get("subtype"):
            case "result", _:
                return text_event(EventKind.TERMINAL, data.get("result") or data["subtype"], data)
            case "system", "init":
                return AgentEvent(EventKind.SESSION, data={"session_id": data["session_id"]})
            case "system", "api_retry":
                kind = EventKind.THROTTLED if _is_throttled(data.get("error_status")) else EventKind.TEXT
                return AgentEvent(kind, data={"retry_after_seconds": data["retry_delay_ms"] / 1000})
            case "system", "permission_denied":
                return _refused(data["tool_name"], data["message"])
            case "user", _:
                return _tool_end(data["message"]["content"])
            case "assistant", _:
                content = data["message"]["content"]
                if tools := {block["id"]: block["name"] for block in content if block["type"] == "tool_use"}:
                    return AgentEvent(EventKind.TOOL, ", ".join(tools.values()), {"tools": tools})
                return text_event(EventKind.TEXT, "".join(block.get("text", "") for block in content))
        return None

    def read_files(self, request: AgentRequest) -> Sequence[AgentEvent]:
        """The tokens of a run that did not come to its result line."""
        calls = [usage for call, usage in _calls(request).items() if call not in self._earlier_calls]
        usage_of_all = summed(usage for _, usage in calls)
        return (
            [AgentEvent(EventKind.USAGE, data={"usage": usage_of_all, "model": calls[-1][0]})] if usage_of_all else ()
        )

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        session_id = last_data(events, EventKind.SESSION).get("session_id")
        result = last_data(events, EventKind.TERMINAL)
        if not result:
            error = failure_in_words(ending, "without a result line")
            counted = last_data(events, EventKind.USAGE)
            usage, model = counted.get("usage"), counted.get("model")
            return AgentEnd(Outcome.FAILED, error=error, usage=usage, model=model, session_id=session_id)
        said = result.get("result")
        end = AgentEnd(
            Outcome.COMPLETED,
            result=said,
            usage=_usage(result),
            cost_usd=result.get("total_cost_usd"),
            model=_model(result),
            session_id=result.get("session_id") or session_id,
            refused=last_data(events, EventKind.TOOL_END).get("refused"),
        )
        if result.get("is_error") or result.get("subtype") != "success":
            outcome = _outcome_of_error(result)
            return replace(
                end,
                outcome=outcome,
                session_unknown=any(str(error).startswith(_NO_SESSION) for error in result.get("errors") or []),
                error=said or "; ".join(result.get("errors") or []) or f"The agent ended with {result.get('subtype')}.",
                retry_after_seconds=_retry_after_seconds(events) if outcome is Outcome.RATE_LIMITED else None,
            )
        if ending.exit_code != 0:
            words = f"The agent reported success, but ended with {ending_in_words(ending)}."
            return replace(end, outcome=Outcome.FAILED, error=words)
        if denied := _denied_all_work(result, events):
            words = f"The agent was not permitted to use {', '.join(denied)}, and changed nothing by other means."
            return replace(end, outcome=Outcome.PERMISSION_DENIED, error=words)
        return end


def _tool_end(content: Sequence[Mapping[str, Any]]) -> AgentEvent | None:
    """What tools gave back. One that the permissions leave out is an error in these words; a denial has a line of its own."""
    for block in content:
        if block["type"] == "tool_result" and not block.get("is_error"):
            return AgentEvent(EventKind.TOOL_END, data={"refused": None})
        if block["type"] == "tool_result" and (left_out := _LEFT_OUT.search(str(block["content"]))):
            return _refused(left_out[1], left_out[0])
    return None


def _refused(tool: str, why: str) -> AgentEvent:
    refused = f"{tool} ({first_line(why).rstrip('.')})"
    return text_event(EventKind.TOOL_END, refused, {"refused": refused})


def _is_throttled(status: object) -> bool:
    return isinstance(status, int) and outcome_of_status(status) is Outcome.RATE_LIMITED


def _home(request: AgentRequest) -> Path:
    return request.state_dir / "claude"


def _calls(request: AgentRequest) -> dict[str, tuple[Any, dict[str, int]]]:
    """The model's answers that stand in the session's file: by their ids the model and the tokens of each."""
    calls: dict[str, tuple[Any, dict[str, int]]] = {}
    for file in sorted(_home(request).glob("projects/*/*.jsonl")):
        for data in json_lines(file):
            match data:
                case {"type": "assistant", "message": {"id": str(call), "usage": {**usage}, "model": model}}:
                    calls[call] = (model, _of_run(usage))
    return calls


def _outcome_of_error(result: Mapping[str, Any]) -> Outcome:
    """An error of the API comes with `subtype: success`: its status decides first."""
    status: int | None = result.get("api_error_status")
    if status is not None and (outcome := outcome_of_status(status)) is not Outcome.FAILED:
        return outcome
    if result.get("terminal_reason") == "api_error" and status is None:
        return Outcome.PROVIDER_UNAVAILABLE  # there was no answer: refused, or broken off
    return _BY_SUBTYPE.get(str(result.get("subtype")), Outcome.FAILED)


def _usage(result: Mapping[str, Any]) -> dict[str, int]:
    """The run's own `usage`; where that is all zero, as at an exhausted budget, the sum of `modelUsage`."""
    run, models = result.get("usage") or {}, list((result.get("modelUsage") or {}).values())
    counted = _of_run(run)
    if any(counted.values()):
        return counted
    return {ours: sum(int(model.get(theirs) or 0) for model in models) for ours, (_, theirs) in _TOKENS.items()}


def _model(result: Mapping[str, Any]) -> str | None:
    """Of several, the one that has cost most: a small one writes titles."""
    models: Mapping[str, Mapping[str, Any]] = result.get("modelUsage") or {}
    return max(models, key=lambda name: models[name].get("costUSD") or 0.0, default=None)


def _of_run(usage: Mapping[Any, Any]) -> dict[str, int]:
    return {ours: int(usage.get(theirs) or 0) for ours, (theirs, _) in _TOKENS.items()}


def _retry_after_seconds(events: Sequence[AgentEvent]) -> float | None:
    """The program's last wait between its own tries: what the provider's Retry-After asked for, give or take its jitter."""
    waits = [event.data["retry_after_seconds"] for event in events if "retry_after_seconds" in event.data]
    return waits[-1] if waits else None


def _denied_all_work(result: Mapping[str, Any], events: Sequence[AgentEvent]) -> list[str]:
    """The tools that were denied, if no other call could have changed anything.

    An agent that was denied one command and then did its work with another has not failed: git and the check judge it.
    """
    denied = {denial["tool_use_id"]: denial["tool_name"] for denial in result.get("permission_denials") or []}
    used = {key: tool for event in events if event.kind is EventKind.TOOL for key, tool in event.data["tools"].items()}
    worked = any(tool in _CHANGING_TOOLS and key not in denied for key, tool in used.items())
    return [] if worked else sorted(set(denied.values()))
