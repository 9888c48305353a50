"""What the adapters of agents' programs share: their configuration, and reading JSON lines that may be anything."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from pydantic import Field

from orchestrator.plan.model import Permissions
from workers.agents.protocol import Agent, AgentConfig, AgentEvent, AgentRequest, EventKind

SHOWN_CHARACTERS: Final = 500
"""Of an event's text, which is for people."""

ANY_CEILING: Final[frozenset[Permissions]] = frozenset({"read-only", "edit", "full"})

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What a piece of a line, or a shape that is new to us, raises where it is read."""


class ProgramConfig(AgentConfig):
    model: str | None = Field(None, description="a model's name, as the program knows it; default: the program's own")
    path: str | None = Field(None, description="the program, if it is not on the PATH")


Config = TypeVar("Config", bound=ProgramConfig)


class ProgramAgent(Agent[Config]):
    """Base of the adapters of programs that need a model and its provider."""

    program: ClassVar[str]
    permissions = ANY_CEILING

    def command(self, request: AgentRequest) -> str:
        return self.config(request).path or self.program


class JsonLinesAgent(ProgramAgent[Config]):
    """Base of those that write one JSON object a line to stdout."""

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        if stream != "stdout" or not line.startswith("{"):
            return None
        try:
            return self.event(json.loads(line))
        except UNREADABLE:
            return None

    @abstractmethod
    def event(self, data: Mapping[str, Any]) -> AgentEvent | None:
        """What the object means. May raise any of `UNREADABLE`."""


def text_event(kind: EventKind, text: str, data: Mapping[str, Any] | None = None) -> AgentEvent:
    return AgentEvent(kind, text[:SHOWN_CHARACTERS], data or {})


def json_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines; a line that is none is left out, and so is a file that can't be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    data = json.loads(line)
                except ValueError:
                    continue
                if isinstance(data, dict):
                    yield data
    except OSError:
        return


def summed(usages: Iterable[Mapping[str, int]]) -> dict[str, int] | None:
    """Tokens by kind over several calls; None of none."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return dict(total) or None


def uncached(usage: Mapping[str, int]) -> dict[str, int]:
    """A usage in which `input_tokens` counts what came from the cache once more, made one in which it does not."""
    return {**usage, "input_tokens": usage["input_tokens"] - usage.get("cache_read_tokens", 0)}


def said(events: Sequence[AgentEvent]) -> str | None:
    """The agent's last words, whole."""
    return next((event.data["words"] for event in reversed(events) if "words" in event.data), None)
