"""`orchestrator watch`: follow a job until it is final."""

from __future__ import annotations

import typer

from orchestrator.cli.options import JsonOption, NewestJobArgument, NoProgressOption


def watch(job: NewestJobArgument = None, as_json: JsonOption = False, no_progress: NoProgressOption = False) -> None:
    """Follow a job until it ends.

    Ctrl-C leaves it running. The exit code is the job's: 0 completed, 1 failed, 130 cancelled.
    """
    from orchestrator.access.connect import chosen_job, database
    from orchestrator.cli.attend import attend, tell_end
    from orchestrator.settings import load_settings

    grace_seconds = load_settings().unreachable_grace_seconds
    with database() as engine:
        job_id = chosen_job(engine, job)
        ended = attend(engine, job_id, as_json=as_json, no_progress=no_progress, grace_seconds=grace_seconds)
    raise typer.Exit(tell_end(ended, as_json=as_json))
