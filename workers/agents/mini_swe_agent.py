"""The agent `mini-swe-agent`: a loop around one shell, so that it needs `permissions: full`.

    agent: {name: mini-swe-agent, model: anthropic/claude-sonnet-4-5, max_cost_usd: 2, max_turns: 50}

Keys come from the worker's environment (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, …). It tells its end, tokens and cost in
a file, its trajectory. Measured with 2.4.6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from orchestrator.outcomes import Outcome
from orchestrator.supervisor import Ending
from workers.agents.program import UNREADABLE, ProgramAgent, ProgramConfig, summed, text_event, uncached
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
from workers.agents.provider import ANTHROPIC, DEEPSEEK, GEMINI, OPENAI, OPENROUTER, outcome_of_words

_LIMIT: Final = "LimitsExceeded"
_RAISED: Final = re.compile(r"^(?:litellm\.)?\w+Error: ")
"""The last line of a traceback, which is how it says that its provider failed."""


class MiniSweAgentConfig(ProgramConfig):
    max_cost_usd: float | None = Field(None, gt=0, description="before it ends as budget_exceeded, one call over")
    max_turns: int | None = Field(None, ge=1, description="model calls before it ends as turn_limit")


class MiniSweAgent(ProgramAgent[MiniSweAgentConfig]):
    name = "mini-swe-agent"
    config_model = MiniSweAgentConfig
    program = "mini"
    permissions = frozenset({"full"})
    capabilities = Capabilities(turn_limit=True, budget=True, tokens=Counted.PER_RUN, cost=Counted.PER_RUN)
    environment = (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_API_BASE", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        "DEEPSEEK_API_KEY",
    )

    providers = (ANTHROPIC, OPENAI, GEMINI, OPENROUTER, DEEPSEEK)

    def launch(self, request: AgentRequest) -> Launch:
        config = self.config(request)
        state = request.state_dir / "mini"
        state.mkdir(exist_ok=True)
        # JSON is YAML. As an argument the prompt would end at 128 KiB and show in every process listing.
        told: dict[str, Any] = {"run": {"task": request.prompt}}
        told["agent"] = {"cost_limit": config.max_cost_usd or 0, "step_limit": config.max_turns or 0}
        (state / "task.yaml").write_text(json.dumps(told))
        argv = [self.command(request), "--yolo", "--exit-immediately", "--output", str(state / "traj.json")]
        argv += ["--config", "mini.yaml", "--config", str(state / "task.yaml")]
        if config.model:
            argv += ["--model", config.model]
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "MSWEA_CONFIGURED": "true",
            "MSWEA_COST_TRACKING": "ignore_errors",
            "MSWEA_GLOBAL_CONFIG_DIR": str(state),
            "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "2",  # long back-off belongs to the queue, where it holds no slot
        }
        return Launch(argv, env)

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        if stream == "stderr" and _RAISED.match(line):
            return text_event(EventKind.TEXT, line, {"raised": line})
        return None

    def read_files(self, request: AgentRequest) -> Sequence[AgentEvent]:
        try:
            return list(_of_trajectory(json.loads((request.state_dir / "mini" / "traj.json").read_text())))
        except (OSError, *UNREADABLE):
            return ()

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        terminal = last_data(events, EventKind.TERMINAL)
        about: dict[str, Any] = {
            "result": terminal.get("submission") or None,
            "usage": summed(event.data["usage"] for event in events if event.kind is EventKind.USAGE),
            "cost_usd": terminal.get("cost_usd") or None,
        }
        raised = next((event.data["raised"] for event in reversed(events) if "raised" in event.data), None)
        status = terminal.get("exit_status")
        if status == _LIMIT:
            return self._limit(terminal, about)
        if status == "Submitted" and ending.exit_code == 0:
            return AgentEnd(Outcome.COMPLETED, **about)
        if status == "Submitted":
            words = f"The agent had submitted its work, but ended with {ending_in_words(ending)}."
            return AgentEnd(Outcome.FAILED, error=words, **about)
        words = failure_in_words(ending, f"in the state {status}" if status else "without a trajectory")
        provider = outcome_of_words(f"{status}: {raised}") if raised or status else Outcome.FAILED
        return AgentEnd(provider, error=words, **about)

    def _limit(self, terminal: Mapping[str, Any], about: Mapping[str, Any]) -> AgentEnd:
        limit = terminal["limits"]
        if limit["step_limit"] and terminal["calls"] >= limit["step_limit"]:
            words = f"The agent reached its limit of {limit['step_limit']} turns."
            return AgentEnd(Outcome.TURN_LIMIT, error=words, **about)
        words = f"The agent reached its limit of ${limit['cost_limit']:g}."
        return AgentEnd(Outcome.BUDGET_EXCEEDED, error=words, **about)


def _of_trajectory(trajectory: Mapping[str, Any]) -> Iterator[AgentEvent]:
    info = trajectory["info"]
    for message in trajectory["messages"]:
        usage = ((message.get("extra") or {}).get("response") or {}).get("usage")
        if usage:
            yield AgentEvent(EventKind.USAGE, data={"usage": _usage(usage)})
    limits = info["config"]["agent"]
    yield AgentEvent(
        EventKind.TERMINAL,
        data={
            "exit_status": info.get("exit_status"),
            "submission": info.get("submission"),
            "cost_usd": info["model_stats"]["instance_cost"],
            "calls": info["model_stats"]["api_calls"],
            "limits": {key: limits.get(key) or 0 for key in ("step_limit", "cost_limit")},
        },
    )


def _usage(usage: Mapping[str, Any]) -> dict[str, int]:
    """Its `prompt_tokens` holds those from the cache too."""
    return uncached(
        {
            "input_tokens": int(usage["prompt_tokens"]),
            "output_tokens": int(usage["completion_tokens"]),
            "cache_read_tokens": int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        }
    )
