"""`orchestrator retry`: run again what did not complete."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JobArgument, JsonOption, NoProgressOption

if TYPE_CHECKING:
    from orchestrator.access.connect import Joined


def retry(
    job: JobArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job to its end; starts a local stack where no fleet is set up.")
    ] = False,
    max_cost_usd: Annotated[
        float | None,
        typer.Option(
            "--max-cost-usd",
            metavar="USD",
            help="The job's budget from now on. All that it has spent so far is taken from it.",
        ),
    ] = None,
    as_json: JsonOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Run again what did not complete.

    Failed, timed-out, cancelled and skipped subtasks of a job that has ended; completed ones never run twice. A job whose
    budget is spent needs a higher one.
    """
    from orchestrator.access.connect import chosen_job, is_configured, join, need_of_waiting
    from orchestrator.local.client import Need
    from orchestrator.settings import load_settings

    if max_cost_usd is not None and not (isfinite(max_cost_usd) and max_cost_usd > 0):
        raise typer.BadParameter("a budget is more than 0 USD", param_hint="--max-cost-usd")
    settings = load_settings()
    with join(settings, need_of_waiting(settings) if wait else Need.SERVICES) as joined:
        job_id = chosen_job(joined.fleet.engine, job)
        code = _retry(
            joined,
            job_id,
            max_cost_usd=max_cost_usd,
            wait=wait,
            has_fleet=is_configured(settings),
            as_json=as_json,
            no_progress=no_progress,
        )
    raise typer.Exit(code)


def _retry(
    joined: Joined,
    job_id: str,
    *,
    max_cost_usd: float | None,
    wait: bool,
    has_fleet: bool,
    as_json: bool,
    no_progress: bool,
) -> int:
    from orchestrator.agent_choice import require_programs
    from orchestrator.cli.attend import attend, tell_end
    from orchestrator.cli.nobody_works import warn_if_nobody_works, warn_of_missing_programs
    from orchestrator.cli.render import print_json
    from orchestrator.dispatch.steering import retry_job
    from orchestrator.state.queries import newest_event, unfinished_subtasks
    from orchestrator.text import plural

    fleet = joined.fleet
    with fleet.engine.connect() as connection:
        after_event = newest_event(connection, job_id)
        unfinished = unfinished_subtasks(connection, job_id)
    if wait and not has_fleet:
        require_programs(unfinished, fleet.settings)
    again = retry_job(fleet, job_id, max_cost_usd=max_cost_usd)
    if as_json:
        print_json({"type": "retried", "job_id": job_id, "subtask_ids": list(again)}, one_line=True)
    elif again:
        ids = ", ".join(f"#{subtask_id}" for subtask_id in again)
        print(f"Job {job_id} runs {plural(len(again), 'subtask')} again: {ids}")
    else:
        print(f"Job {job_id} has no subtask to run again.")
    if again and (not wait or has_fleet):
        nodes = warn_if_nobody_works(fleet, job_id)
        warn_of_missing_programs(fleet, unfinished, nodes)
    if not wait:
        return 0
    ended = attend(
        fleet.engine,
        job_id,
        as_json=as_json,
        no_progress=no_progress,
        grace_seconds=fleet.settings.unreachable_grace_seconds,
        after_event=after_event,
        check=joined.check,
    )
    return tell_end(ended, as_json=as_json)
