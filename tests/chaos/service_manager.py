"""What a real fleet has beside it: somebody who starts again what has ended, and a clock that sets going what was stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlalchemy import text

from orchestrator.errors import OrchestratorException
from orchestrator.state.engine import translated
from tests.chaos.world import World

log = logging.getLogger(__name__)


@contextmanager
def service_manager(world: World, stop_seconds: Mapping[str, float]) -> Iterator[None]:
    """Until the end of the block: revive what died, continue what a fault point stopped (`stop_seconds` by point), and
    keep a copy of every message that the outbox holds."""
    done = threading.Event()

    def run() -> None:
        continued = 0
        resume_at: dict[int, float] = {}
        while not done.wait(0.1):
            hits = world.points.hits()
            for hit in hits[continued:]:
                if hit.action == "stop":
                    resume_at[hit.pid] = time.monotonic() + stop_seconds[hit.point]
            continued = len(hits)
            for pid in [pid for pid, instant in resume_at.items() if instant <= time.monotonic()]:
                del resume_at[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            for name in world.circumstances:
                world.revive(name)
            _copy_messages(world)
        for pid in resume_at:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=run, name="service-manager", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _copy_messages(world: World) -> None:
    with suppress(OrchestratorException), translated(), world.fleet.client.engine.connect() as connection:
        for row in connection.execute(text("SELECT id, message FROM outbox")):
            world.messages[row.id] = row.message
