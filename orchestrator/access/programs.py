"""Which agents the workers of a fleet could start, as they say themselves (`workers.advertising`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.access.nodes import ANSWER_SECONDS, asking
from orchestrator.task_names import AGENT_PROGRAMS

if TYPE_CHECKING:
    from celery import Celery

LONGEST_SECONDS: Final = 4.0
"""How long workers get to ask programs for their versions; they answer before, and are asked again."""


@dataclass(frozen=True)
class AgentProgram:
    """An agent at one worker. `path` is its program's where a plan names one. `note` says what stands against it."""

    worker: str
    agent: str
    path: str | None
    found: bool
    version: str | None
    supported: bool
    note: str

    @property
    def is_missing(self) -> bool:
        """Whether an attempt there ends as `agent_missing`: a program that does not tell its version is tried."""
        return not self.found or (self.version is not None and not self.supported)


def programs_at(
    app: Celery, broker_url: str, workers: Sequence[str], wanted: Sequence[tuple[str, str | None]] | None = None
) -> list[AgentProgram]:
    """What those workers say of the agents `wanted` (names, with the path of the program where a plan says it), or of all
    that they know. Who is silent, or still looks after `LONGEST_SECONDS`, is left out. Raises `BrokerUnavailable`."""
    give_up_at = time.monotonic() + LONGEST_SECONDS
    told: dict[tuple[str, str, str | None], AgentProgram] = {}
    asked = list(workers)
    while asked:
        answers = _ask(app, broker_url, asked, wanted)
        told |= {(one.worker, one.agent, one.path): one for one in _told(answers)}
        asked = [worker for worker, said in answers.items() if any(one.get("looking") for one in said)]
        if time.monotonic() > give_up_at:
            break
    return [told[key] for key in sorted(told, key=lambda key: (key[0], key[1], key[2] or ""))]


def _ask(
    app: Celery, broker_url: str, workers: Sequence[str], wanted: Sequence[tuple[str, str | None]] | None
) -> dict[str, list[Mapping[str, Any]]]:
    """By the worker's name. One of an earlier version does not know the question, and is silent."""
    with asking(broker_url):
        replies = app.control.broadcast(
            AGENT_PROGRAMS,
            arguments={"wanted": None if wanted is None else [list(one) for one in wanted]},
            destination=list(workers),
            reply=True,
            timeout=2 * ANSWER_SECONDS,
            limit=len(workers),
        )
    return {worker: said for reply in replies or () for worker, said in reply.items() if isinstance(said, list)}


def _told(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[AgentProgram]:
    for worker, said in answers.items():
        for one in said:
            if not one.get("looking"):
                known = {key: one[key] for key in ("agent", "path", "found", "version", "supported", "note")}
                yield AgentProgram(worker, **known)
