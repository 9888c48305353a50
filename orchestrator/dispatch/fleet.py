"""What a process of the fleet holds on to: settings, the database, the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from celery import Celery
from sqlalchemy import Engine

from orchestrator.accounts import Account, agent_account
from orchestrator.celery_app import create_app
from orchestrator.errors import ConfigurationError
from orchestrator.repository_cache import RepositoryCache
from orchestrator.settings import Settings
from orchestrator.state import outbox
from orchestrator.state.engine import create_engine
from orchestrator.supervisor import StopSignal


@dataclass(frozen=True)
class Fleet:
    """One object a process; engine and application are safe to use from many threads."""

    settings: Settings
    engine: Engine
    app: Celery
    repositories: RepositoryCache
    leaving: StopSignal = field(default_factory=StopSignal)
    """Set when this process is asked to stop."""

    @property
    def database_url(self) -> str:
        assert self.settings.database_url is not None, "nobody joins a fleet without"
        return self.settings.database_url

    @cached_property
    def agent_account(self) -> Account | None:
        """That under which agents and checks run; None: our own. Raises `ConfigurationError` where it can't be taken."""
        return agent_account(self.settings.agent_user)

    def publish(self, messages: Sequence[outbox.Message]) -> None:
        """Send messages whose transaction has committed."""
        if messages:
            outbox.publish(self.engine, self.app, messages, republish_seconds=self.settings.republish_seconds)


def join_fleet(
    settings: Settings, app: Celery | None = None, *, pool_size: int = 5, name: str = "orchestrator"
) -> Fleet:
    """Connect to what the settings name. Nothing is opened yet. Raises `ConfigurationError` where a URL is missing."""
    if settings.database_url is None:
        raise ConfigurationError(
            "No database is configured.", recovery="Set ORCHESTRATOR_DATABASE_URL to a PostgreSQL URL."
        )
    engine = create_engine(settings.database_url, pool_size=pool_size, application_name=name)
    repositories = RepositoryCache(settings.repositories_dir, for_account=settings.agent_user is not None)
    return Fleet(settings, engine, app or create_app(settings), repositories)
