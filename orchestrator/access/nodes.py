"""The processes of a fleet, as they answer through Celery's remote control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import BrokerUnavailable
from orchestrator.redaction import redact_url
from orchestrator.task_names import AGENTS_QUEUE, CONTROL_QUEUE

if TYPE_CHECKING:
    from celery import Celery

    from orchestrator.settings import Settings

ANSWER_SECONDS: Final = 1.0
"""How long processes get to answer a broadcast: all of it passes where nobody knows how many there are."""


@dataclass(frozen=True)
class Node:
    """One process. `busy` counts the tasks that it runs now, at most `slots`."""

    name: str
    queues: tuple[str, ...]
    slots: int
    busy: int

    @property
    def is_dispatcher(self) -> bool:
        return CONTROL_QUEUE in self.queues

    @property
    def is_worker(self) -> bool:
        return AGENTS_QUEUE in self.queues

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it offers, from the names of its queues: `agents.gpu+large` tells of `gpu` and `large`."""
        offered = {
            capability
            for queue in self.queues
            if queue.startswith(f"{AGENTS_QUEUE}.")
            for capability in queue.removeprefix(f"{AGENTS_QUEUE}.").split("+")
        }
        return tuple(sorted(offered))


def look_at_fleet(settings: Settings, names: Sequence[str] = ()) -> list[Node]:
    """Every dispatcher and worker that answers within `ANSWER_SECONDS`, in the order of their names; with `names` these
    alone, and no longer than they take. Raises `BrokerUnavailable`."""
    from orchestrator.celery_app import check_broker, create_app

    check_broker(settings)
    return nodes_of(create_app(settings), settings.broker_url or "", sorted(set(names)))


def nodes_of(app: Celery, broker_url: str, names: Sequence[str] = ()) -> list[Node]:
    """The same, asked through an application that is there already."""
    with asking(broker_url):
        asked = app.control.inspect(destination=names or None, timeout=ANSWER_SECONDS, limit=len(names) or None)
        queues: dict[str, Any] = asked.active_queues() or {}
        if not queues:
            return []
        # Now it is known who answers, so the other questions end with the last answer.
        known = app.control.inspect(destination=list(queues), timeout=ANSWER_SECONDS, limit=len(queues))
        stats: dict[str, Any] = known.stats() or {}
        active: dict[str, Any] = known.active() or {}
    return [
        Node(
            name,
            tuple(queue["name"] for queue in queues[name]),
            int(stats.get(name, {}).get("pool", {}).get("max-concurrency") or 0),
            len(active.get(name, ())),
        )
        for name in sorted(queues)
    ]


@contextmanager
def asking(broker_url: str) -> Iterator[None]:
    """Questions to the processes of a fleet. Raises `BrokerUnavailable`."""
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    try:
        yield
    except (OperationalError, RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"The broker at {redact_url(broker_url)} can't be asked: {str(error).rstrip('.')}.",
            recovery="Start it, or mend ORCHESTRATOR_BROKER_URL.",
        ) from error
