"""One way to reach PostgreSQL, and one way to say that it can't be reached.

Every connection speaks UTC and has limits fit for short transactions: nothing in this project may hold a lock while it
waits for a person, an agent or a network. Migrations lift the limits for themselves.
"""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

import psycopg
import sqlalchemy
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.errors import ConfigurationError, DatabaseUnavailable

CONNECT_TIMEOUT_SECONDS: Final = 5
POOL_TIMEOUT_SECONDS: Final = 30
OVERFLOW: Final = 2
"""Connections beyond the pool. Each is opened for one use and costs more than a wait for one that is coming back."""
SESSION_OPTIONS: Final = (
    "-c timezone=UTC -c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
)
DEAD_PEER_OPTIONS: Final = {
    # A host that vanished is noticed after about 25 s, also in the midst of a statement; a Unix socket ignores these.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
SCHEMA_IS_OTHER: Final = {"42P01", "42703", "3F000"}
"""SQLSTATEs of a table, a column or a schema that does not exist."""


def create_engine(database_url: str, *, pool_size: int = 5, application_name: str = "orchestrator") -> Engine:
    """An engine on PostgreSQL through psycopg 3. It opens no connection yet.

    `database_url` is `postgresql://user:password@host:port/name` (`postgres://` too); a Unix socket's folder goes into
    `?host=/folder` or, percent-encoded, where the host stands. `pool_size` connections are kept; when all are busy
    a few more are opened for a moment, and who comes then waits for one. A connection that the server has closed is replaced before it is handed out,
    so that a restarted server costs no error. Raises `ConfigurationError` for a URL that is none of these.
    """
    url = _psycopg_url(database_url)
    options = f"{SESSION_OPTIONS} {url.query.get('options', '')}".rstrip()
    engine = sqlalchemy.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=OVERFLOW,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            # A database of encoding SQL_ASCII would else answer in bytes.
            "client_encoding": "utf8",
            **DEAD_PEER_OPTIONS,
            **{name: value for name, value in url.query.items() if name != "host"},
            "options": options,
        },
    )
    sqlalchemy.event.listen(engine, "checkout", _replace_if_closed)
    return engine


def _replace_if_closed(connection: Any, _record: Any, _fairy: Any) -> None:
    """Raise SQLAlchemy's word for a connection that is to be replaced.

    A server that closes an idle connection makes its socket readable. So one look at it, which costs nothing, stands for
    the round trip that a ping costs; only a connection that does have something to say is asked.
    """
    ready = select.poll()
    ready.register(connection.fileno(), select.POLLIN)
    if not ready.poll(0):
        return
    try:
        connection.execute("")
        connection.rollback()
    except psycopg.Error as error:
        raise DisconnectionError from error


@contextmanager
def translated() -> Iterator[None]:
    """Inside it, a database that can't be reached raises `DatabaseUnavailable`, a missing schema `ConfigurationError`.

    Each is one line without a password. Other errors of the database are faults of this program and pass unchanged.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailable(
            f"No connection to the database became free within {POOL_TIMEOUT_SECONDS} s.",
            recovery="Give this process fewer slots, or see what holds the database's locks.",
        ) from error
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None)
        if isinstance(error, ProgrammingError) and sqlstate in SCHEMA_IS_OTHER:
            raise _schema_is_other(error.orig) from error
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            raise _unavailable(error.orig) from error
        raise
    except psycopg.ProgrammingError as error:
        if error.sqlstate in SCHEMA_IS_OTHER:
            raise _schema_is_other(error) from error
        raise
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        # A connection that was taken from the pool, to LISTEN or for `in_one_trip`, raises psycopg's own errors.
        raise _unavailable(error) from error


def _psycopg_url(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise ConfigurationError(
            "The database URL can't be read.", recovery="Write it as postgresql://user:password@host:port/name."
        ) from error
    if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ConfigurationError(
            f"The database URL names {url.drivername}, and only PostgreSQL will do.",
            context={"database_url": url.render_as_string(hide_password=True)},
            recovery="Write it as postgresql://user:password@host:port/name.",
        )
    url = url.set(drivername="postgresql+psycopg")
    if url.host and url.host.startswith("%2F"):
        # libpq decodes a socket's folder in the host's place, SQLAlchemy does not.
        url = url.set(host="").update_query_dict({"host": unquote(url.host)})
    return url


def _schema_is_other(error: BaseException | None) -> ConfigurationError:
    return ConfigurationError(
        f"The database does not have this version's tables: {_one_line(error)}.",
        recovery="Run `orchestrator db upgrade`.",
    )


def _unavailable(error: BaseException | None) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The database can't be used: {_one_line(error)}.",
        context={"sqlstate": getattr(error, "sqlstate", None)},
        recovery="See that PostgreSQL runs and that ORCHESTRATOR_DATABASE_URL is right.",
    )


def _one_line(error: Any) -> str:
    """The first line that says what happened, without a password and without a final period."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and "Multiple connection attempts failed" not in line]
    first = telling[0].removeprefix("connection failed: ") if telling else type(error).__name__
    return redact_password(first).rstrip(".")


def redact_password(text: str) -> str:
    """`text` with the passwords of URLs and of `password=…` replaced by `***`."""
    text = re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)
    return re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", text)
