"""`orchestrator resume`: let a paused job go on."""

from __future__ import annotations

from orchestrator.cli.options import JobArgument, JsonOption


def resume(job: JobArgument, as_json: JsonOption = False) -> None:
    """Let a paused job go on at once.

    A job that is not paused stays as it is.
    """
    from orchestrator.access.connect import chosen_job, join
    from orchestrator.cli.nobody_works import warn_if_nobody_works
    from orchestrator.cli.render import print_json
    from orchestrator.dispatch.steering import resume_job
    from orchestrator.local.client import Need
    from orchestrator.settings import load_settings
    from orchestrator.state.queries import job_view

    with join(load_settings(), Need.SERVICES) as joined:
        engine = joined.fleet.engine
        job_id = chosen_job(engine, job)
        landed = resume_job(joined.fleet, job_id)
        view = job_view(engine, job_id)
        if as_json:
            print_json({"job_id": job_id, "resumed": landed, "status": view.status})
        elif landed:
            print(f"Job {job_id} goes on.")
        else:
            print(f"Job {job_id} is not paused.")
        if landed:
            warn_if_nobody_works(joined.fleet, job_id)
