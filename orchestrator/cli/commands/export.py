"""`orchestrator export`: a job's whole history as one JSON document, to keep when its rows go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import JobArgument


def export(
    job: JobArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="With what the agents wrote.")] = False,
) -> None:
    """Write a job's whole history as one JSON document.

    Plan, prompts, groups, attempts and events (docs/json.md); passwords in URLs are left out. It may still run: the
    document is of now.
    """
    from orchestrator.access.connect import chosen_job, database
    from orchestrator.cli.archive import archive_pieces
    from orchestrator.cli.files import require_place_for, write_text
    from orchestrator.cli.render import say

    if output is not None:
        require_place_for(output)
    with database() as engine:
        job_id = chosen_job(engine, job)
        pieces = archive_pieces(engine, job_id, with_logs=logs)
        if output is None:
            for piece in pieces:
                print(piece, end="")
        else:
            write_text(output, pieces)
            say(f"Wrote {output}: the history of job {job_id}.")
