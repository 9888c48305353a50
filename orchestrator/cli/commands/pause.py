"""`orchestrator pause`: start no new agent of a job for a while."""

from __future__ import annotations

from orchestrator.cli.options import JobArgument, JsonOption


def pause(job: JobArgument, as_json: JsonOption = False) -> None:
    """Start no new agent of a job.

    Running agents work to their end, and a group that is complete is merged; nothing else starts until `resume`. The
    job's deadline goes on counting. A job that is paused already stays so.
    """
    from orchestrator.access.connect import chosen_job, join
    from orchestrator.cli.render import print_json
    from orchestrator.dispatch.steering import pause_job
    from orchestrator.local.client import Need
    from orchestrator.settings import load_settings
    from orchestrator.state.queries import job_view
    from orchestrator.text import plural

    with join(load_settings(), Need.SERVICES) as joined:
        engine = joined.fleet.engine
        job_id = chosen_job(engine, job)
        landed = pause_job(joined.fleet, job_id)
        view = job_view(engine, job_id)
    running = sum(1 for subtask in view.subtasks if subtask.status == "in_progress")
    if as_json:
        print_json({"job_id": job_id, "paused": landed, "status": view.status, "running": running})
        return
    still = f"; {plural(running, 'agent')} still at work" if running else ""
    print(f"Job {job_id} is paused{'' if landed else ' already'}{still}. Go on with: orchestrator resume {job_id}")
