"""The agent `shell`: any command, run by strict bash in the workspace.

    agent: {name: shell, command: "make generate"}

The command finds its prompt in the file `$ORCHESTRATOR_PROMPT_FILE`. Exit code 0 is success, and what it printed last is
its result; everything else is a failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from orchestrator.check import STRICT_BASH
from orchestrator.outcomes import Outcome
from orchestrator.supervisor import Ending
from workers.agents.protocol import Agent, AgentConfig, AgentEnd, AgentEvent, AgentRequest, Launch, failure_in_words

_RESULT_LINES: Final = 20
_RESULT_CHARACTERS: Final = 4000


class ShellConfig(AgentConfig):
    command: str = Field(min_length=1, description="run with bash -euo pipefail -c")


class ShellAgent(Agent[ShellConfig]):
    name = "shell"
    expects_changes = False
    config_model = ShellConfig
    program = "bash"

    def __init__(self) -> None:
        self._last_lines: deque[str] = deque(maxlen=_RESULT_LINES)

    def launch(self, request: AgentRequest) -> Launch:
        return Launch([*STRICT_BASH, self.config(request).command])

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        if stream == "stdout":
            self._last_lines.append(line[-_RESULT_CHARACTERS:])
        return None

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        result = "\n".join(self._last_lines).strip()[-_RESULT_CHARACTERS:] or None
        if ending.exit_code == 0:
            return AgentEnd(Outcome.COMPLETED, result=result)
        return AgentEnd(Outcome.FAILED, error=failure_in_words(ending), result=result)
