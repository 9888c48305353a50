"""How a caller reaches the services: what is configured is used, what is not is started for as long as it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigurationError
from orchestrator.import_ahead import import_ahead

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.dispatch.fleet import Fleet
    from orchestrator.local.client import Need
    from orchestrator.settings import Settings


@dataclass(frozen=True)
class Joined:
    """A fleet that this command may use. `check` raises `LocalStackError` when the local stack behind it broke down."""

    fleet: Fleet
    check: Callable[[], None]


@contextmanager
def database_url() -> Iterator[str]:
    """The URL of the database: the one configured, or the local stack's while it is used."""
    from orchestrator.local.client import Need, local_stack
    from orchestrator.settings import load_settings

    with local_stack(load_settings(), need=Need.DATABASE) as stack:
        assert stack.settings.database_url is not None, "the local stack fills in what is not configured"
        yield stack.settings.database_url


@contextmanager
def database() -> Iterator[Engine]:
    """An engine on the database, for commands that only look.

    Inside it a database that can't be reached raises `DatabaseUnavailable`.
    """
    from orchestrator.state.engine import create_engine, translated

    with database_url() as url:
        engine = create_engine(url, pool_size=2)
        try:
            with translated():
                yield engine
        finally:
            engine.dispose()


@contextmanager
def join(
    settings: Settings, need: Need, *, slots: int | None = None, on_progress: Callable[[str], None] | None = None
) -> Iterator[Joined]:
    """Database and broker, for commands that submit or steer; with `Need.WORKERS` a dispatcher and a worker too.

    `slots` is how many agents there is room for at least, where workers are started here. `on_progress` hears in a few
    words what is being waited for. Raises `ServiceUnavailable`.
    """
    from orchestrator.local.client import local_stack

    # Each puts another module in its own place while it is imported: of two threads that come to it at once, one would be
    # left with the first, in which nothing is.
    import_ahead("celery", "kombu")
    # Celery and SQLAlchemy take as long to import as the services take to start.
    threading.Thread(target=_import_what_joining_needs, name="import-ahead").start()
    with local_stack(settings, need=need, slots=slots, on_progress=on_progress) as stack:
        from orchestrator.dispatch.fleet import join_fleet
        from orchestrator.state.engine import translated

        fleet = join_fleet(stack.settings)
        try:
            with translated():
                yield Joined(fleet, stack.check)
        finally:
            fleet.engine.dispose()


def _import_what_joining_needs() -> None:
    # What is wrong with a module is said where it is imported again.
    with suppress(Exception):
        import_ahead("orchestrator.dispatch.submission", "orchestrator.access.follow")


def is_configured(settings: Settings) -> bool:
    """Whether a fleet is named: both its broker and its database."""
    return settings.broker_url is not None and settings.database_url is not None


def need_of_work(settings: Settings) -> Need:
    """What is needed to get agents to work: a fleet that is configured and answers is used as it is; else a dispatcher
    and a worker are started here."""
    from orchestrator.access.nodes import look_at_fleet
    from orchestrator.local.client import Need

    if settings.broker_url is None:
        return Need.WORKERS
    # Also where only the broker is named: a job that nobody is woken for would be waited for in silence.
    nodes = look_at_fleet(settings)
    if settings.database_url is None:
        return Need.WORKERS
    works = any(node.is_dispatcher for node in nodes) and any(node.is_worker for node in nodes)
    return Need.SERVICES if works else Need.WORKERS


def need_of_waiting(settings: Settings) -> Need:
    """What `--wait` needs: a fleet that is configured is waited for, whoever of it answers; else it is started here."""
    from orchestrator.local.client import Need

    return Need.SERVICES if is_configured(settings) else Need.WORKERS


def require_services(settings: Settings, who: str) -> None:
    """Raise `ConfigurationError` unless database and broker are configured: a process of a fleet starts neither."""
    if not is_configured(settings):
        named = {"ORCHESTRATOR_BROKER_URL": settings.broker_url, "ORCHESTRATOR_DATABASE_URL": settings.database_url}
        missing = " and ".join(name for name, url in named.items() if url is None)
        raise ConfigurationError(
            f"{who} needs the fleet's services: {missing} is not set.",
            recovery="Set it, or use `orchestrator up` for a stack on this machine.",
        )


def chosen_job(engine: Engine, prefix: str | None) -> str:
    """The job that a command is about: the one whose id begins with `prefix`, without one the newest."""
    from orchestrator.state.queries import find_job, newest_job

    with engine.connect() as connection:
        return newest_job(connection) if prefix is None else find_job(connection, prefix)
