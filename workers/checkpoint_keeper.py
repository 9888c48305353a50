"""When checkpoints are taken: one thread a worker, whatever the number of agents, begun with the first of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class CheckpointKeeper:
    """Calls every `take` that is registered, one after the other, every `seconds`; 0: never."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._takes: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def calling(self, attempt_id: int, take: Callable[[], None]) -> Iterator[None]:
        """While the block runs. A call may still be under way when it is left."""
        if not self._seconds:
            yield
            return
        with self._lock:
            self._takes[attempt_id] = take
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._takes[attempt_id]

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            with self._lock:
                takes = list(self._takes.values())
            for take in takes:
                try:
                    take()
                except Exception:
                    # A checkpoint is nice to have, and this thread serves all agents of the worker.
                    log.exception("A checkpoint met a surprise.", extra={"event": "checkpoint.surprise"})
