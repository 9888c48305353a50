"""Agents by name, as classes: the workers' side of `orchestrator.agent_names`.

@register_agent("my-agent")
class MyAgent(Agent[MyConfig]): ...
"""

from __future__ import annotations

from typing import cast

from orchestrator.agent_names import known_agents, register_agent, require_agent
from orchestrator.agent_plugin import AgentPlugin
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings, load_settings
from workers.agents.plugin import adapter_of
from workers.agents.protocol import Agent, AgentConfig

__all__ = ["agent_class", "register_agent"]


def agent_class(name: str, settings: Settings | None = None) -> type[Agent[AgentConfig]]:
    """The class of that name; `settings` default to those of this process.

    Raises `ConfigurationError` that lists the known names; there is never a stand-in.
    """
    entry = require_agent(name, known_agents(settings or load_settings()))
    found = entry.load()
    if issubclass(found, AgentPlugin):
        return adapter_of(name, entry.origin, found)
    if not issubclass(found, Agent):
        raise ConfigurationError(
            f"The agent {name} from {entry.origin} is not derived from workers.agents.protocol.Agent.",
            context={"agent": name, "origin": entry.origin},
            recovery="Derive it from that class.",
        )
    return cast(type[Agent[AgentConfig]], found)
