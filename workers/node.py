"""A process of the fleet, as `orchestrator worker`, `orchestrator dispatcher` and the local stack's keeper run it.

It is what `celery -A workers.app worker` is, without Celery's command line: that imports a shell, Flower and every other
command before anything starts, 0.3 s and 16 MB a process.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any, Final

from orchestrator.closed_process import close_to_others
from orchestrator.errors import OrchestratorException
from orchestrator.import_ahead import import_ahead
from orchestrator.task_names import CONTROL_QUEUE, queues_of_worker

if TYPE_CHECKING:
    from orchestrator.settings import Settings

DISPATCHER_SLOTS: Final = 8
"""Merges at once in one dispatcher; a group's check holds one for as long as it runs. A free slot costs nothing."""
NEEDED_BY_BOTH: Final = (
    # what `workers.app` imports; not itself, for it reads the settings
    "orchestrator.celery_app",
    "orchestrator.dispatch.tasks",
    "workers.event_batches",
    "workers.lifecycle",
    "workers.slots",
    "workers.tasks",
    # what Celery imports by name, when a worker starts
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.task",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.concurrency.thread",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
)
"""For the time that a start of the stack takes; whatever is not here is imported when it is used."""


def main() -> None:
    close_to_others()
    words = parser().parse_args()
    if words.role == "fork-server":
        from orchestrator.local import fork_server  # noqa: PLC0415 - its imports take a while, see `close_to_others`

        import_ahead(*NEEDED_BY_BOTH)
        words = parser().parse_args(fork_server.serve())
    os.environ.update(variables(words))
    try:
        # This reads the settings.
        import_ahead("workers.app")
        from workers.app import app, settings  # noqa: PLC0415

        worker = app.Worker(**celery_options(words, settings))
    except OrchestratorException as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    worker.start()
    sys.exit(worker.exitcode)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.node", description=__doc__)
    parser.add_argument("role", choices=["worker", "dispatcher", "fork-server"])
    parser.add_argument("--slots", help="agents at once in a worker")
    parser.add_argument("--capabilities", help="what a worker offers, comma-separated")
    parser.add_argument("--name", help="in the fleet, unique on this host; default: a random one")
    parser.add_argument("--log-level", default="info")
    return parser


def variables(words: argparse.Namespace) -> dict[str, str]:
    """What was said in place of a setting, for `load_settings`."""
    said = {"ORCHESTRATOR_SLOTS": words.slots, "ORCHESTRATOR_CAPABILITIES": words.capabilities}
    return {name: value for name, value in said.items() if value is not None}


def celery_options(words: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What Celery's worker is told. A node's name must be unique: who gave none has a random one."""
    from celery.utils.nodenames import host_format  # noqa: PLC0415 - see `main`

    is_worker = words.role == "worker"
    name = words.name or f"{words.role}-{secrets.token_hex(3)}"
    return {
        "hostname": host_format(f"{name}@%h"),
        "queues": queues_of_worker(settings.capabilities) if is_worker else [CONTROL_QUEUE],
        "pool_cls": "threads",
        "concurrency": settings.slots if is_worker else DISPATCHER_SLOTS,
        "loglevel": words.log_level,
        # The nodes need nothing of each other, and both cost time at each start.
        "without_mingle": True,
        "without_gossip": True,
    }


if __name__ == "__main__":
    main()
