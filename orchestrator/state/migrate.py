"""Bring a database to this version's tables.

Alembic is for databases that an older version made. Its import would cost every start of the program, so neither the
question "is it there already?" nor a new database, which gets its tables as they are now, has a need for it.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import Connection, Engine, text

from orchestrator.errors import ConfigurationError
from orchestrator.state.engine import create_engine, translated
from orchestrator.state.migrations import HEAD
from orchestrator.state.tables import metadata

logger = logging.getLogger(__name__)

UPGRADE_LOCK: Final = 0x6F726368
"""The advisory lock that all upgrades of a database share: "orch" in ASCII."""
ALEMBIC_TABLE: Final = """
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)
"""
"""As Alembic makes it."""
HAS_ALEMBIC_TABLE: Final = """
SELECT 1 FROM pg_tables WHERE tablename = 'alembic_version' AND schemaname = ANY (current_schemas(false))
"""


def head() -> str:
    """The revision that this version of the program works with."""
    return HEAD


def current(engine: Engine) -> str | None:
    """The revision of the database; `None` where nothing was ever set up. Raises `DatabaseUnavailable`."""
    with translated(), engine.connect() as connection:
        return _current(connection)


def upgrade(database_url: str) -> None:
    """Bring the database to `head()`: all of it or, on any error, nothing.

    Several processes may call it at once: the first does the work, the others wait and find it done. Raises
    `DatabaseUnavailable`, or `ConfigurationError` where a newer version of the program was here before.
    """
    engine = create_engine(database_url, pool_size=1, application_name="orchestrator upgrade")
    try:
        if current(engine) != HEAD:
            with translated(), engine.begin() as connection:
                _upgrade(connection)
    finally:
        engine.dispose()


def run_revisions(connection: Connection) -> None:
    """Bring the database to `head()` by Alembic's revisions, from whatever revision it is at, in this transaction.

    Raises `ConfigurationError` where a newer version of the program was here before.
    """
    from alembic import command  # noqa: PLC0415 - only who migrates pays for the import
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    found = _current(connection)
    config = Config()
    config.set_main_option("script_location", "orchestrator.state:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"The database is at revision {found}, which this version does not know.",
            context={"revision": found, "head": HEAD},
            recovery="A newer version of orchestrator has upgraded it: install that one here too.",
        ) from error


def _current(connection: Connection) -> str | None:
    # Not `to_regclass`: while this transaction waited for the lock, that one's cache went stale.
    if connection.scalar(text(HAS_ALEMBIC_TABLE)) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _upgrade(connection: Connection) -> None:
    # Others may wait long for the lock, and a migration may work long. Both end with this transaction.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
    found = _current(connection)
    if found == HEAD:
        return
    if found is None:
        _create(connection)
    else:
        run_revisions(connection)
    logger.info(
        "The database went from revision %s to %s.",
        found or "nothing",
        HEAD,
        extra={"event": "database.upgraded", "revision": HEAD},
    )


def _create(connection: Connection) -> None:
    """What all migrations together make; a test holds the two equal."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(text(ALEMBIC_TABLE))
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
