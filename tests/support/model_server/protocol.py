"""What a provider's protocol is for the server: how to read a request, and how to write an answer.

Every answer counts the same tokens, so that a test can say what a run must have cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tests.support.model_server.script import Script, Step

UNCACHED, CACHED, OUTPUT = 1000, 300, 50
TOKENS: Final = {"input_tokens": UNCACHED, "cache_read_tokens": CACHED, "output_tokens": OUTPUT}
"""Of one answer: what was read anew, what came from the provider's cache, what was written."""

TITLE: Final = "A title"
"""What a request gets that carries no script or offers no tools: programs ask for titles beside their work."""


@dataclass(frozen=True)
class Asked:
    """A request, understood. `step` is the number of tool results since the script; `tools` maps the names of the tools
    offered to their JSON schemas."""

    model: str
    script: Script | None
    step: int
    tools: Mapping[str, Any]
    stream: bool


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


Answer = ToolCall | str
"""A call of one tool, or the model's last words."""


class Wire(Protocol):
    """One provider's protocol."""

    def read(self, path: str, request: Mapping[str, Any]) -> Asked: ...

    def answer(self, asked: Asked, step: Step) -> Answer: ...

    def events(self, asked: Asked, answer: Answer) -> Sequence[str]:
        """The streamed answer, a server-sent event each, the last of which ends it."""
        ...

    def whole(self, asked: Asked, answer: Answer) -> Any:
        """The same for a request that wants no stream."""
        ...

    def error(self, status: int) -> Any: ...


def event(data: Any, name: str | None = None) -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def texts(value: Any) -> str:
    """Every text inside a JSON value, in order."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(texts(part) for part in value.values())
    if isinstance(value, list):
        return "\n".join(texts(part) for part in value)
    return ""


def shell_line(step: Step) -> str:
    """The step as a command, for programs whose one tool is a shell."""
    if step.kind == "write":
        return f"mkdir -p \"$(dirname '{step.value}')\" && printf %s {_quoted(step.content)} > '{step.value}'"
    return step.value


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
