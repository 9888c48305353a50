"""A process that is asked to stop: what its signals count, and what follows in a thread of its own."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Leaving:
    """`ask` may be called by a signal's handler: it takes no lock, for a handler may have interrupted the very code that
    holds one. What needs locks is done in a thread."""

    def __init__(self) -> None:
        self._asked = os.eventfd(0, os.EFD_CLOEXEC)

    def ask(self) -> None:
        os.eventfd_write(self._asked, 1)

    def heed(self, *, begin: Callable[[], None], end_agents: Callable[[], None], drain_seconds: float) -> None:
        """When it is asked: `begin`, and `end_agents` after `drain_seconds`, or as soon as it is asked again."""

        def wait() -> None:
            times = os.eventfd_read(self._asked)
            log.info("This process is asked to stop.", extra={"event": "worker.leaving"})
            begin()
            if times == 1:
                select.select([self._asked], [], [], drain_seconds)
            end_agents()

        threading.Thread(target=wait, name="leaving", daemon=True).start()
