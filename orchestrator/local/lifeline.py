"""How a dispatcher or a worker learns from the keeper that started it: two facts through one pipe.

The keeper writes a byte when database and broker answer, so that a process may start, and import, while they start. It
never writes again; the end of the pipe means that the keeper is gone, also by kill -9.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

KEEPER_FD: Final = "ORCHESTRATOR_KEEPER_FD"
"""The variable with the number of the pipe's end; not set where no keeper started this process."""


def watch_keeper(on_gone: Callable[[], None]) -> threading.Event:
    """Call `on_gone`, in a thread of its own, when the keeper of this process has ended.

    Returns an event that is set when database and broker answer, or the keeper is gone. Where no keeper started this
    process the event is set already and `on_gone` is never called. Call it once: it takes the variable away, so that
    no process started from here can mistake itself for the keeper's child.
    """
    services_answer = threading.Event()
    number = os.environ.pop(KEEPER_FD, None)
    if number is None:
        services_answer.set()
        return services_answer
    pipe = int(number)
    os.set_inheritable(pipe, False)

    def watch() -> None:
        while os.read(pipe, 1):
            services_answer.set()
        os.close(pipe)
        services_answer.set()
        on_gone()

    threading.Thread(target=watch, name="keeper-watch", daemon=True).start()
    return services_answer
