"""The one way to reach PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.state import migrate
from orchestrator.state.engine import create_engine, redact_password, translated
from tests.support.services import PostgresService


def test_a_pool_recovers_from_a_restart_without_an_error(postgres: PostgresService, database: str) -> None:
    engine = create_engine(database)
    with engine.connect() as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    postgres.restart()
    with translated(), engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before
    engine.dispose()


def test_a_connection_lost_in_the_midst_is_the_database_being_unavailable(
    postgres: PostgresService, database: str
) -> None:
    engine = create_engine(database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        postgres.restart()
        with pytest.raises(DatabaseUnavailable), translated():
            connection.execute(text("SELECT 1"))
    engine.dispose()


def test_a_stopped_server_is_one_line_with_what_to_do(postgres: PostgresService, database: str) -> None:
    engine = create_engine(database)
    postgres.stop()
    with pytest.raises(DatabaseUnavailable) as caught, translated():
        engine.connect()
    assert "\n" not in str(caught.value)
    assert "ORCHESTRATOR_DATABASE_URL" in caught.value.recovery
    assert postgres.server.password not in str(caught.value)


def test_sessions_speak_utc_and_have_limits(database: str) -> None:
    engine = create_engine(database, application_name="a test")
    with engine.connect() as connection:
        shown = {
            name: connection.scalar(text(f"SHOW {name}"))
            for name in ("timezone", "statement_timeout", "lock_timeout", "application_name")
        }
    engine.dispose()
    assert shown == {"timezone": "UTC", "statement_timeout": "30s", "lock_timeout": "10s", "application_name": "a test"}


def test_text_is_text_whatever_the_database_is_encoded_in(postgres: PostgresService) -> None:
    url = postgres.new_empty_database(encoding="SQL_ASCII")
    migrate.upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 'über' || version_num FROM alembic_version")) == f"über{migrate.head()}"
    engine.dispose()
    postgres.drop_database(url)


def test_a_lock_that_is_never_released_is_an_error_in_words(database: str) -> None:
    engine = create_engine(database)
    with engine.begin() as holder, engine.begin() as waiter:
        holder.execute(text("LOCK TABLE jobs"))
        waiter.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"), translated():
            waiter.execute(text("LOCK TABLE jobs"))
        waiter.rollback()
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_usual_form_of_the_url_connects(database: str, scheme: str) -> None:
    credentials, query = database.removeprefix("postgresql://").split("?host=")
    name = credentials.partition("@/")[2]
    forms = [
        f"{scheme}://{credentials}?host={query}",
        f"{scheme}://{credentials.partition('@/')[0]}@{query.replace('/', '%2F')}/{name}",
    ]
    for form in forms:
        engine = create_engine(form)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_database()")) == name
        engine.dispose()


@pytest.mark.parametrize("url", ["mysql://u:hidden@host/name", "nonsense", ""])
def test_another_url_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://") as caught:
        create_engine(url)
    assert "hidden" not in str(caught.value)


def test_passwords_are_redacted_wherever_they_stand() -> None:
    assert redact_password("at postgresql://u:secret@h/db now") == "at postgresql://u:***@h/db now"
    assert redact_password("password=secret host=h") == "password=*** host=h"
    assert redact_password("redis+socket://:secret@/run/x") == "redis+socket://:***@/run/x"
