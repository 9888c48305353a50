"""`orchestrator submit`: put a plan into the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AgentOption, JsonOption, NoProgressOption, PlanArgument


def submit(
    plan: PlanArgument,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job to its end; starts a local stack where no fleet is set up.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Submitting again with this key gives the same job.")
    ] = None,
    agent: AgentOption = None,
    repo: Annotated[str | None, typer.Option(metavar="REPO", help="In place of the plan's repository.")] = None,
    as_json: JsonOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Put a plan into the queue and print the job's id."""
    from orchestrator.access.connect import is_configured, join, need_of_waiting
    from orchestrator.agent_choice import require_programs
    from orchestrator.cli.attend import attend, tell_end
    from orchestrator.cli.nobody_works import warn_if_nobody_works, warn_of_missing_programs
    from orchestrator.cli.plans import local_repository, read_plan
    from orchestrator.cli.render import print_json, say
    from orchestrator.dispatch.submission import submit as submit_plan
    from orchestrator.local.client import Need
    from orchestrator.settings import load_settings

    settings = load_settings()
    validated = read_plan(plan, settings, agent=agent, repo=repo)
    repository = local_repository(validated)
    if wait and not is_configured(settings):
        require_programs(validated.subtasks, settings)
    with join(settings, need_of_waiting(settings) if wait else Need.SERVICES) as joined:
        submitted = submit_plan(joined.fleet, validated, idempotency_key=idempotency_key, repository=repository)
        for note in submitted.notes:
            say(note)
        if as_json:
            print_json({"type": "submitted", "job_id": submitted.job_id, "created": submitted.created}, one_line=True)
        else:
            print(submitted.job_id, flush=True)
        if not wait or is_configured(settings):
            nodes = warn_if_nobody_works(joined.fleet, submitted.job_id)
            warn_of_missing_programs(joined.fleet, validated.subtasks, nodes)
        if not wait:
            return
        ended = attend(
            joined.fleet.engine,
            submitted.job_id,
            as_json=as_json,
            no_progress=no_progress,
            grace_seconds=settings.unreachable_grace_seconds,
            check=joined.check,
        )
    raise typer.Exit(tell_end(ended, as_json=as_json))
