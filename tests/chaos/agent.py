"""The agent `remembering`: a shell command with a session, that a later attempt goes on with, as the real programs have.

    agent: {name: remembering, command: "…"}

The command finds the session's file in `$MEMORY`: what an earlier attempt has written there is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from orchestrator.supervisor import Ending
from workers.agents.end_line import read_own_line
from workers.agents.protocol import AgentEnd, AgentEvent, AgentRequest, Capabilities, EventKind, Launch, last_data
from workers.agents.registry import register_agent
from workers.agents.shell import ShellAgent

MODULE: Final = __name__


@register_agent("remembering")
class RememberingAgent(ShellAgent):
    name = "remembering"
    capabilities = Capabilities(resume=True)
    session_files = ("session-{session_id}.txt",)

    def launch(self, request: AgentRequest) -> Launch:
        session_id = request.session_id or f"of-{request.subtask_id}-{request.attempt_number}"
        *bash, command = super().launch(request).argv
        begin = f'echo \'{{"event": "session", "session_id": "{session_id}"}}\'; '
        return Launch([*bash, begin + command], {"MEMORY": str(request.state_dir / f"session-{session_id}.txt")})

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        return read_own_line(stream, line) or super().read_line(stream, line)

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        session_id = last_data(events, EventKind.SESSION).get("session_id")
        return replace(super().classify(ending, events), session_id=session_id)
