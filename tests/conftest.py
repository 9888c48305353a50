"""Fixtures that every test may use: real servers, one pair for a test process (pytest-xdist: one a worker)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.fleet import TestFleet, open_fleet
from tests.support.services import PostgresService, RedisService, Services

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The servers of this test process, started when first used."""
    both = Services()
    yield both
    both.close()


@pytest.fixture
def postgres(services: Services) -> Iterator[PostgresService]:
    """PostgreSQL, to stop and start at will; it runs again when the test ends."""
    server = services.postgres
    yield server
    if not server.is_running():
        server.start()


@pytest.fixture
def redis_server(services: Services) -> Iterator[RedisService]:
    """Redis or Valkey, to stop and start at will; it runs again when the test ends."""
    server = services.redis
    yield server
    if not server.is_running():
        server.start()


@pytest.fixture(scope="session")
def postgres_url(services: Services) -> str:
    """The server's own database: empty, for tests that make their own."""
    return services.postgres.url


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    """Broker and result backend, in Celery's form; what other tests left may be in it."""
    return services.redis.url


@pytest.fixture
def database(postgres: PostgresService) -> Iterator[str]:
    """The URL of a fresh database with all tables."""
    url = postgres.new_database()
    yield url
    if postgres.is_running():
        postgres.drop_database(url)


@pytest.fixture
def broker(redis_server: RedisService) -> str:
    """The URL of an empty broker and result backend."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def fleet(database: str, broker: str, tmp_path: Path) -> Iterator[TestFleet]:
    """A fleet of the test's own: no process runs yet, and none is left."""
    one = open_fleet(database, broker, tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="session")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestFleet]:
    """One dispatcher and one worker, on servers of their own, for all tests that only submit and look; those that stop
    or kill something take `fleet`."""
    servers = Services()
    one = open_fleet(servers.postgres.new_database(), servers.redis.url, tmp_path_factory.mktemp("fleet"))
    one.start_dispatcher()
    one.start_worker()
    yield one
    one.close()
    servers.close()
