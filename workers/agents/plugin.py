"""Plugins (`orchestrator.agent_plugin`): a Python class as an agent, in a process of its own for each attempt.

A process and no thread, so that every promise holds as for any agent's program: its tree ends at the deadline, its limits
count, and what it breaks is its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from orchestrator.agent_plugin import AgentPlugin
from orchestrator.supervisor import Ending
from workers.agents.end_line import end_by_line, read_own_line
from workers.agents.protocol import Agent, AgentConfig, AgentEnd, AgentEvent, AgentRequest, Launch
from workers.agents.versions import AgentVersion

_PROGRAM: Final = Path(__file__).with_name("plugin_program.py")


class PluginAgent(Agent[AgentConfig]):
    """Base of the adapters that `adapter_of` makes."""

    origin: ClassVar[str]
    """`module:class`, as the program imports it."""

    def launch(self, request: AgentRequest) -> Launch:
        told = {
            "origin": self.origin,
            # The plugin is found where this worker finds it; an empty entry means its working directory.
            "path": [str(Path(entry).resolve()) for entry in sys.path],
            "config": {**request.config, "workspace_path": str(request.workspace)},
            "prompt_file": str(request.prompt_file),
            "context": {
                "subtask_id": request.subtask_id,
                "title": request.title,
                "attempt_number": request.attempt_number,
                "workspace_path": str(request.workspace),
            },
        }
        file = request.state_dir / "request.json"
        file.write_text(json.dumps(told))
        # By its path and not with -m, which would let a module of the workspace take the place of one of ours.
        return Launch([sys.executable, str(_PROGRAM), str(file)])

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        return read_own_line(stream, line)

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        return end_by_line(ending, events)

    def version(self) -> AgentVersion:
        return AgentVersion(found=True, supported=True, note=f"the Python class {self.origin}")


def adapter_of(name: str, origin: str, plugin: type[AgentPlugin]) -> type[PluginAgent]:
    """The adapter class for a plugin's class that is registered as `name` and imported as `origin`."""
    return type(
        "PluginAgent",
        (PluginAgent,),
        {
            "name": name,
            "origin": origin,
            "config_model": plugin.config_model,
            "expects_changes": plugin.expects_changes,
            "environment": plugin.environment,
            "providers": plugin.providers,
        },
    )
