"""`orchestrator cancel`: end a job."""

from __future__ import annotations

from orchestrator.cli.options import JobArgument, JsonOption


def cancel(job: JobArgument, as_json: JsonOption = False) -> None:
    """End a job.

    Nothing new starts, running agents are stopped, and what was merged stays on the branch.
    """
    from orchestrator.access.connect import chosen_job, join
    from orchestrator.cli.render import print_json
    from orchestrator.dispatch.steering import cancel_job
    from orchestrator.local.client import Need
    from orchestrator.settings import load_settings
    from orchestrator.state.queries import job_view

    with join(load_settings(), Need.SERVICES) as joined:
        engine = joined.fleet.engine
        job_id = chosen_job(engine, job)
        landed = cancel_job(joined.fleet, job_id)
        view = job_view(engine, job_id)
    if as_json:
        print_json({"job_id": job_id, "cancelled": landed, "status": view.status})
    elif landed:
        print(f"Job {job_id} is cancelled." if view.is_final else f"Job {job_id} is being cancelled.")
    elif view.is_final:
        print(f"Job {job_id} is {view.status} already: nothing to cancel.")
    else:
        print(f"Job {job_id} is being ended already.")
