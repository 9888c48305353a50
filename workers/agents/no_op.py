"""The agent `no-op`: waits, if told to, and is done. It runs in the worker's process, so it costs what the queue costs.

agent: {name: no-op, seconds: 0.05}
"""

from __future__ import annotations

from pydantic import Field

from orchestrator.outcomes import Outcome
from workers.agents.in_process import InProcessAgent, Patience
from workers.agents.protocol import AgentConfig, AgentEnd


class NoOpConfig(AgentConfig):
    seconds: float = Field(0.0, ge=0, description="how long it waits before it is done")


class NoOpAgent(InProcessAgent[NoOpConfig]):
    name = "no-op"
    config_model = NoOpConfig

    def run_here(self, config: NoOpConfig, patience: Patience) -> AgentEnd:
        why = patience.wait(config.seconds) if config.seconds else patience.over
        if why is not None:
            return AgentEnd(Outcome.FAILED, error=f"ended before its time: {why}")
        return AgentEnd(Outcome.COMPLETED)
