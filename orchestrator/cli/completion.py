"""What the shell offers where a job's id or an agent's name is wanted.

Nothing here raises: a shell that completes must not be shown an error.
"""

from __future__ import annotations

from typing import Final

OFFERED: Final = 50
TITLE_CELLS: Final = 50
CONNECT_TIMEOUT_SECONDS: Final = "2"


def jobs_that_begin(incomplete: str) -> list[tuple[str, str]]:
    """The newest jobs whose id begins so, each with its status and title; it asks only a database that runs already."""
    try:
        return _ask(incomplete.lower())
    except Exception:
        return []


def agents_that_begin(incomplete: str) -> list[str]:
    """The names of agents that plans can use here."""
    from orchestrator.agent_names import known_agents
    from orchestrator.settings import load_settings

    try:
        return [name for name in known_agents(load_settings()) if name.startswith(incomplete)]
    except Exception:
        return []


def _ask(beginning: str) -> list[tuple[str, str]]:
    from sqlalchemy import make_url

    from orchestrator.cli.render import shortened
    from orchestrator.local.client import running_database
    from orchestrator.settings import load_settings
    from orchestrator.state.engine import create_engine
    from orchestrator.state.queries import jobs_beginning
    from orchestrator.text import first_line

    with running_database(load_settings()) as url:
        if url is None:
            return []
        hurried = make_url(url).update_query_dict({"connect_timeout": CONNECT_TIMEOUT_SECONDS})
        engine = create_engine(hurried.render_as_string(hide_password=False), pool_size=1)
        try:
            with engine.connect() as connection:
                found = jobs_beginning(connection, beginning, limit=OFFERED)
        finally:
            engine.dispose()
    # A shell takes the colon for the end of the id.
    return [
        (job_id, f"{status} · {shortened(first_line(title).replace(':', ' '), TITLE_CELLS)}")
        for job_id, status, title in found
    ]
