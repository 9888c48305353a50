"""The agent `cumulative`: `scripted`, whose figures speak of its session since its beginning, as some programs' do."""

from __future__ import annotations

from typing import Final

from workers.agents.protocol import Capabilities, Counted
from workers.agents.registry import register_agent
from workers.agents.scripted import ScriptedAgent

MODULE: Final = __name__


@register_agent("cumulative")
class CumulativeAgent(ScriptedAgent):
    name = "cumulative"
    capabilities = Capabilities(resume=True, tokens=Counted.PER_SESSION, cost=Counted.PER_SESSION)
