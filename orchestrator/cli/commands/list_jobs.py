"""`orchestrator list`: the jobs, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.state.views import JobLine


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many jobs to show.")] = 20,
    status: Annotated[
        Literal["pending", "running", "completed", "failed", "cancelled"] | None,
        typer.Option(help="Only jobs in this state."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the jobs, newest first."""
    from orchestrator.access.connect import database
    from orchestrator.cli import documents
    from orchestrator.cli.render import print_json
    from orchestrator.state import queries

    with database() as engine, engine.connect() as connection:
        jobs = queries.list_jobs(connection, limit=limit, status=status)
    if as_json:
        print_json({"jobs": [documents.job_line(job) for job in jobs]})
    else:
        from orchestrator.cli.render import console

        print_jobs(console(), jobs)


def print_jobs(to: Console, jobs: list[JobLine]) -> None:
    """The table of jobs. On a terminal the counts and the times give way, so that titles can be seen."""
    from orchestrator.cli.render import STYLES, counted, local_time, print_table, short_time
    from orchestrator.text import duration

    if not jobs:
        print("No jobs. `orchestrator run PLAN` makes one.")
        return
    is_narrow = to.is_terminal and to.width < 100
    rows = [
        (
            job.id,
            _status(job),
            short_time(job.created_at) if is_narrow else local_time(job.created_at),
            duration(job.duration_seconds),
            counted(job.subtasks),
            job.title,
        )
        for job in jobs
    ]
    styles = STYLES | {"cancelling": "yellow", "paused": "yellow"}
    headers = ("job", "status", "submitted", "time", "subtasks", "title")
    print_table(to, headers, rows, styles=styles, longest={"subtasks": max(to.width // 5, 9)})


def _status(job: JobLine) -> str:
    if job.finished_at is not None:
        return job.status
    if job.cancel_requested_at is not None:
        return "cancelling"
    return "paused" if job.paused_at is not None else job.status
