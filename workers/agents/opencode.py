"""The agent `opencode`: one `opencode run` an attempt.

    agent: {name: opencode, model: anthropic/claude-sonnet-4-5}

Keys come from the worker's environment (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, …). The model `openai-compatible/NAME`
is one of the provider whose address is `OPENAI_BASE_URL`. What is written here of its output was measured with 1.18.33.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from workers.agents.program import JsonLinesAgent, ProgramConfig, said, summed, text_event
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
from workers.agents.provider import ANTHROPIC, OPENAI, OPENROUTER, outcome_of_status, outcome_of_words

COMPATIBLE: Final = "openai-compatible"
"""The provider's name in a model's, for the worker's own address."""

_PERMISSIONS: Final = {
    "read-only": {"edit": "deny", "bash": "deny", "external_directory": "deny"},
    "edit": {"edit": "allow", "bash": "deny", "external_directory": "deny"},
    "full": {"edit": "allow", "bash": "allow", "external_directory": "allow"},
}


class OpencodeAgent(JsonLinesAgent[ProgramConfig]):
    name = "opencode"
    config_model = ProgramConfig
    program = "opencode"
    oldest_version = (1, 18)
    capabilities = Capabilities(tokens=Counted.PER_RUN, cost=Counted.PER_RUN)
    # No `session_files`: on a copy of its database it hangs.
    environment = (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
        *("OPENROUTER_API_KEY", "OPENCODE_API_KEY"),
    )

    providers = (
        ANTHROPIC,
        Provider("openai", OPENAI.keys),
        Provider(COMPATIBLE, OPENAI.keys, "OPENAI_BASE_URL"),
        Provider("google", ("GOOGLE_GENERATIVE_AI_API_KEY", "GEMINI_API_KEY")),
        OPENROUTER,
        Provider("opencode", ("OPENCODE_API_KEY",)),
    )

    def launch(self, request: AgentRequest) -> Launch:
        config = self.config(request)
        argv = [self.command(request), "run", "--format", "json"]
        if config.model is not None:
            argv += ["--model", config.model]
        state = request.state_dir / "opencode"
        env = {f"XDG_{kind}_HOME": str(state / kind.lower()) for kind in ("DATA", "CONFIG", "STATE", "CACHE")}
        env |= {
            "OPENCODE_CONFIG_CONTENT": json.dumps(_configuration(config.model, request)),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        }
        return Launch(argv, env, stdin_file=request.prompt_file)

    def event(self, data: Mapping[str, Any]) -> AgentEvent | None:
        match data["type"]:
            case "step_start":
                return AgentEvent(EventKind.SESSION, data={"session_id": data["sessionID"]})
            case "text":
                return text_event(EventKind.TEXT, data["part"]["text"], {"words": data["part"]["text"]})
            case "tool_use":
                return text_event(EventKind.TOOL, data["part"]["tool"])
            case "error":
                error = data["error"]
                words = str(error.get("data", {}).get("message") or error["name"])
                return text_event(
                    EventKind.TERMINAL, words, {"error": words, "status": error.get("data", {}).get("statusCode")}
                )
            case "step_finish":
                # The last one of a run that ended by itself has the reason `stop`: it is the program's last word.
                kind = EventKind.TERMINAL if data["part"]["reason"] == "stop" else EventKind.USAGE
                return AgentEvent(kind, data={"usage": _usage(data["part"]), "cost_usd": float(data["part"]["cost"])})
        return None

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        terminal = last_data(events, EventKind.TERMINAL)
        counted = [event.data for event in events if "usage" in event.data]
        cost_usd = sum(data["cost_usd"] for data in counted)
        about: dict[str, Any] = {
            "result": said(events),
            "usage": summed(data["usage"] for data in counted),
            # It says 0 of a model whose price it does not know.
            "cost_usd": cost_usd or None,
            "session_id": last_data(events, EventKind.SESSION).get("session_id"),
        }
        if error := terminal.get("error"):
            status = terminal.get("status")
            return AgentEnd(outcome_of_status(int(status)) if status else outcome_of_words(error), error=error, **about)
        if not terminal:
            return AgentEnd(Outcome.FAILED, error=failure_in_words(ending, "without a last step"), **about)
        if ending.exit_code != 0:
            words = f"The agent reported its last step, but ended with {ending_in_words(ending)}."
            return AgentEnd(Outcome.FAILED, error=words, **about)
        return AgentEnd(Outcome.COMPLETED, **about)


def _configuration(model: str | None, request: AgentRequest) -> dict[str, Any]:
    said: dict[str, Any] = {"permission": _PERMISSIONS[request.permissions], "share": "disabled"}
    provider, _, name = (model or "").partition("/")
    if provider == COMPATIBLE and name:
        said["provider"] = {
            COMPATIBLE: {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": os.environ.get("OPENAI_BASE_URL", ""), "apiKey": "{env:OPENAI_API_KEY}"},
                "models": {name: {"name": name}},
            }
        }
    return said


def _usage(part: Mapping[str, Any]) -> dict[str, int]:
    tokens = part["tokens"]
    return {
        "input_tokens": int(tokens["input"]),
        "output_tokens": int(tokens["output"]) + int(tokens.get("reasoning") or 0),
        "cache_read_tokens": int(tokens["cache"]["read"]),
        "cache_write_tokens": int(tokens["cache"]["write"]),
    }
