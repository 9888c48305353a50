"""Workspaces are removed in a thread of its own: neither the record of an attempt nor the next attempt waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Removal:
    """At most `waiting` workspaces wait for it; then who brings one more waits, so that the disk does not fill."""

    def __init__(self, waiting: int) -> None:
        self._places = threading.BoundedSemaphore(waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="removal")

    def later(self, remove: Callable[[], None]) -> None:
        """Let the thread do it, after what was brought before."""
        self._places.acquire()
        self._thread.submit(remove).add_done_callback(lambda _done: self._places.release())

    def close(self) -> None:
        """Wait until all is removed. What a killed worker leaves, the next start sweeps."""
        self._thread.shutdown()
