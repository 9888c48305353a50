"""A whole transaction in one round trip.

What many attempts do at once holds the job's row locked, and every round trip inside it holds up all the others: with
psycopg's pipeline the lock is held for as long as the server works, however busy this process is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.dialects.postgresql import psycopg as dialect

from orchestrator.state.engine import translated

Statement = tuple[TextClause, Mapping[str, Any]]
"""A statement and its parameters."""

WITHOUT_DISK: Final[Statement] = (text("SET LOCAL synchronous_commit = off"), {})
"""First in a transaction whose loss in a crash of the server does no harm: it need not wait for the disk."""


def in_one_trip(engine: Engine, *statements: Statement) -> list[list[dict[str, Any]]]:
    """Execute the statements in one transaction, commit, and return the rows of each.

    No statement can depend on an answer, so each has to guard itself. Each sees what was committed before it began, so a
    lock that one takes makes the counts of the next ones exact. All or nothing: an error of one undoes all. Raises
    `DatabaseUnavailable`; whether the commit has landed is then unknown.
    """
    with translated():
        pooled = engine.raw_connection()
        try:
            connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
            cursors = [connection.cursor(row_factory=dict_row) for _ in statements]
            with connection.pipeline(), connection.transaction():
                for cursor, (statement, parameters) in zip(cursors, statements, strict=True):
                    cursor.execute(_in_psycopgs_words(statement), parameters)
            return [[] if cursor.rownumber is None else cursor.fetchall() for cursor in cursors]
        finally:
            pooled.close()


@cache
def _in_psycopgs_words(statement: TextClause) -> Any:
    return str(statement.compile(dialect=dialect.dialect()))  # type: ignore[no-untyped-call]
