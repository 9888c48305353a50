"""What a process of the fleet does when it starts, when it is asked to stop, and when it ends.

signal to a worker            what happens
TERM, INT (first)             nothing new is taken; running agents get `drain_seconds`, then are ended, recorded as
                              `interrupted` and requeued at once; no retry is charged
QUIT, INT (second)            Celery ends without waiting; leases expire, and the work goes on elsewhere
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, signals

from orchestrator.dispatch.fleet import Fleet
from orchestrator.local.lifeline import watch_keeper
from orchestrator.logging import configure_logging
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.task_names import CONTROL_QUEUE
from workers.agent_runner import AgentRunner

log = logging.getLogger(__name__)


def follow_lifecycle(app: Celery, fleet: Callable[[], Fleet], runner: Callable[[], AgentRunner]) -> None:
    """Connect to Celery's signals of a worker process. `fleet` and `runner` are first called here, in its main thread."""
    reconcilers: list[Reconciler] = []

    def set_up_logging(loglevel: int | str = logging.INFO, **_: Any) -> None:
        configure_logging(fleet().settings.log_format, loglevel or logging.INFO)

    def begin(**_: Any) -> None:
        services_answer = watch_keeper(lambda: os.kill(os.getpid(), signal.SIGTERM))
        services_answer.wait()
        if _takes_agents(app):
            runner().begin()

    def ready(**_: Any) -> None:
        if CONTROL_QUEUE in app.amqp.queues.consume_from:
            reconcilers.append(Reconciler(fleet()))
            reconcilers[-1].start()

    def shutting_down(**_: Any) -> None:
        if _takes_agents(app):
            drain = threading.Timer(fleet().settings.drain_seconds, runner().keeper.interrupt)
            drain.daemon = True
            drain.start()

    def end(**_: Any) -> None:
        for reconciler in reconcilers:
            reconciler.stop()
        if _takes_agents(app):
            runner().end()
        fleet().engine.dispose()

    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.worker_init.connect(begin, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def _takes_agents(app: Celery) -> bool:
    return any(name != CONTROL_QUEUE for name in app.amqp.queues.consume_from)
