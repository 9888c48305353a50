"""`orchestrator run`: a plan from its file to its merged branch, with one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import AgentOption, JsonOption, NoProgressOption, PlanArgument

if TYPE_CHECKING:
    from orchestrator.access.connect import Joined
    from orchestrator.plan.model import ValidatedPlan
    from orchestrator.submitted_repository import RepositoryAtSubmission


def run(
    plan: PlanArgument,
    *,
    agent: AgentOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            min=1,
            max=1000,
            metavar="N",
            help="Agents at once in the worker that is started here. Default: what the plan may use.",
        ),
    ] = None,
    repo: Annotated[str | None, typer.Option(metavar="REPO", help="In place of the plan's repository.")] = None,
    as_json: JsonOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Run a plan to its merged branch, with live progress.

    What is not configured is started for as long as it is needed: database, broker, dispatcher and a worker. Ctrl-C
    cancels the job and waits for its agents to end; a second one leaves at once.
    """
    from orchestrator.access.connect import is_configured, join, need_of_work
    from orchestrator.agent_choice import require_programs
    from orchestrator.cli.nobody_works import warn_of_missing_programs
    from orchestrator.cli.plans import local_repository, read_plan
    from orchestrator.cli.render import say
    from orchestrator.settings import load_settings

    settings = load_settings()
    validated = read_plan(plan, settings, agent=agent, repo=repo)
    repository = local_repository(validated)
    if not is_configured(settings):
        require_programs(validated.subtasks, settings)
    slots = workers or max(settings.slots, validated.plan.max_parallel_agents)
    with join(settings, need_of_work(settings), slots=slots, on_progress=None if as_json else say) as joined:
        if is_configured(settings):
            warn_of_missing_programs(joined.fleet, validated.subtasks)
        code = submit_and_attend(joined, validated, repository, as_json=as_json, no_progress=no_progress)
    raise typer.Exit(code)


def submit_and_attend(
    joined: Joined,
    plan: ValidatedPlan,
    repository: RepositoryAtSubmission | None,
    *,
    as_json: bool,
    no_progress: bool,
) -> int:
    """Submit a plan and stay with its job; an interruption cancels it. Returns the exit code."""
    from orchestrator.cli.attend import attend_own_job, tell_end
    from orchestrator.cli.interrupts import Interrupts

    # Interruptions are only noted from here on: one that came in the midst of the submission would leave a job that
    # runs and is watched by nobody.
    with Interrupts() as interrupts:
        ended = attend_own_job(joined, plan, repository, interrupts, as_json=as_json, no_progress=no_progress)
    return tell_end(ended, as_json=as_json)
