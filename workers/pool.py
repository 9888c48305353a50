"""Which of Celery's pools a process of the fleet may have: threads, and no other."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from celery.concurrency import get_implementation
from celery.concurrency.thread import TaskPool as ThreadPool

from orchestrator.errors import ConfigurationError


def refuse_other_pools(chosen: Any) -> None:
    """Exit with a line that says why, unless `chosen`, a pool's name or class, is the threads pool.

    In the children of a prefork pool there would be neither leases nor a guard. Celery takes `--pool prefork`, as it is
    its default, for nothing said, and goes by our configuration: so the command itself is asked too.
    """
    pool = get_implementation(chosen)
    name = None if issubclass(pool, ThreadPool) else pool.__module__.rpartition(".")[2]
    if name is None and _asked_for() in {"prefork", "processes"}:
        name = "prefork"
    if name is not None:
        sys.stderr.write(f"error: Workers and dispatchers use the pool threads, not {name}. Leave out --pool.\n")
        raise SystemExit(ConfigurationError.exit_code)


def _asked_for() -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-P", "--pool")
    asked: str | None = parser.parse_known_args(sys.argv[1:])[0].pool
    return asked
