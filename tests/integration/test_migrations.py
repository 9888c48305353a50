"""The migrations: whole, equal to the tables, and safe when several processes run them at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from orchestrator.errors import ConfigurationError
from orchestrator.state import migrate, migrations
from orchestrator.state.engine import create_engine, translated
from orchestrator.state.tables import jobs
from tests.support.services import PostgresService


def test_head_is_the_newest_revision_in_the_folder() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrate.head()]


def test_a_new_database_is_what_all_migrations_together_make(postgres: PostgresService, database: str) -> None:
    url = postgres.new_empty_database()
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            migrate.run_revisions(connection)
        assert schema_of(database) == schema_of(url)
    finally:
        engine.dispose()
        postgres.drop_database(url)


def schema_of(database_url: str) -> set[tuple[str, ...]]:
    """Columns with type, default and comment, constraints, indexes, triggers and functions; the revision too."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(
            text("""
            SELECT 'column', table_name, column_name,
                   concat_ws(' ', data_type, character_maximum_length, is_nullable, is_identity), column_default
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL
            SELECT 'comment', relname, attname, '', coalesce(col_description(r.oid, attnum), obj_description(r.oid))
            FROM pg_class r JOIN pg_attribute ON attrelid = r.oid
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
            UNION ALL
            SELECT 'constraint', conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL
            SELECT 'index', tablename, indexname, '', indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL
            SELECT 'trigger', tgrelid::regclass::text, tgname, '', pg_get_triggerdef(oid)
            FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL
            SELECT 'function', proname, '', '', pg_get_functiondef(oid)
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL
            SELECT 'revision', version_num, '', '', '' FROM alembic_version
            """)
        ).all()
    engine.dispose()
    return {tuple(row) for row in rows}


def test_several_processes_upgrade_at_once(postgres: PostgresService) -> None:
    url = postgres.new_empty_database()
    try:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=migrate.upgrade, args=(url,)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0, 0]
        engine = create_engine(url)
        assert migrate.current(engine) == migrate.head()
        engine.dispose()
    finally:
        postgres.drop_database(url)


def test_a_database_without_tables_says_what_to_run(postgres: PostgresService) -> None:
    url = postgres.new_empty_database()
    engine = create_engine(url)
    try:
        assert migrate.current(engine) is None
        with pytest.raises(ConfigurationError, match="orchestrator db upgrade"), translated(), engine.connect() as c:
            c.execute(jobs.select())
    finally:
        engine.dispose()
        postgres.drop_database(url)


def test_a_newer_database_is_refused_in_words(database: str) -> None:
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="revision 9999, which this version does not know"):
        migrate.upgrade(database)
    assert migrate.current(engine) == "9999"
    engine.dispose()
