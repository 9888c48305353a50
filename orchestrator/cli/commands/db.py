"""`orchestrator db`: the database's tables."""

from __future__ import annotations

import typer

from orchestrator.cli.options import JsonOption

db = typer.Typer(no_args_is_help=True)


@db.command("upgrade")
def upgrade(as_json: JsonOption = False) -> None:
    """Bring the database to this version's tables.

    Safe to repeat, and from several machines at once.
    """
    from orchestrator.access.connect import database_url
    from orchestrator.cli.render import print_json
    from orchestrator.state import migrate

    with database_url() as url:
        migrate.upgrade(url)
    if as_json:
        print_json({"revision": migrate.head()})
    else:
        print(f"The database is at revision {migrate.head()}.")


@db.command("current")
def current(as_json: JsonOption = False) -> None:
    """Show the database's revision, and the one that this version works with."""
    from orchestrator.access.connect import database
    from orchestrator.cli.render import print_json
    from orchestrator.state import migrate

    with database() as engine:
        found = migrate.current(engine)
    if as_json:
        print_json({"revision": found, "head": migrate.head(), "up_to_date": found == migrate.head()})
    elif found == migrate.head():
        print(f"The database is at revision {found}, as this version needs it.")
    else:
        print(
            f"The database is at revision {found or 'none'}; this version needs {migrate.head()}: orchestrator db upgrade"
        )
