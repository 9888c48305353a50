"""`orchestrator plan`: an agent proposes a plan for a goal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption, NoProgressOption, PlannerOption

if TYPE_CHECKING:
    from orchestrator.plan.planning import Planning

STDOUT = Path("-")


def plan(
    goal: Annotated[
        str,
        typer.Argument(metavar="GOAL", help="What is to be done, in words; @FILE reads it from a file, - from stdin."),
    ],
    *,
    repo: Annotated[str, typer.Option(metavar="REPO", help="The repository: a path or any git URL.")] = ".",
    base: Annotated[
        str | None, typer.Option(metavar="REF", help="The branch, tag or commit to start from. Default: HEAD.")
    ] = None,
    agent: PlannerOption = "claude-code",
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="The agent's model.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the plan is written; - for stdout.")
    ] = Path("plan.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Show the plan, ask, and run it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --run: don't ask.")] = False,
    max_parallel: Annotated[
        int, typer.Option("--max-parallel", min=1, max=10_000, metavar="N", help="Agents at once in the plan.")
    ] = 5,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the agent may take for an answer: 90s, 10m, 1h.")
    ] = "15m",
    as_json: JsonOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Let an agent propose a plan for a goal.

    The agent reads the repository and may change nothing. Its answer is checked like any plan; faults are told to it, twice at
    most. The plan is written as commented YAML: read it, its checks above all, for they are commands that will be run. Ctrl-C
    cancels the agent. Exit code 1 if no answer was a plan.
    """
    from orchestrator.access.connect import is_configured, join, need_of_work
    from orchestrator.agent_choice import require_program
    from orchestrator.agent_names import known_agents
    from orchestrator.cli.commands.run import submit_and_attend
    from orchestrator.cli.nobody_works import warn_of_missing_programs
    from orchestrator.cli.propose import ask, goal_in_words, tell, where_to_look, without_notes
    from orchestrator.cli.render import say
    from orchestrator.plan.model import AgentSpec
    from orchestrator.plan.planning import Planning
    from orchestrator.plan.proposal import Terms
    from orchestrator.settings import load_settings

    _check_options(output, run=run, yes=yes, as_json=as_json, force=force)
    settings = load_settings()
    spec = AgentSpec(name=agent, config={} if model is None else {"model": model})
    place = where_to_look(repo, base)
    terms = Terms(goal_in_words(goal), spec, place.repo, base, max_parallel)
    planning = Planning(terms, known_agents(settings), timeout_seconds=_seconds(timeout))
    if not is_configured(settings):
        require_program(spec, settings)
    slots = max(settings.slots, max_parallel)
    with join(settings, need_of_work(settings), slots=slots, on_progress=None if as_json else say) as joined:
        code = ask(joined, planning, place, as_json=as_json, no_progress=no_progress, on_stderr=output == STDOUT)
        if planning.proposal is None:
            raise typer.Exit(code)
        tell(planning, output, as_json=as_json)
        if code == 0 and run and (yes or _confirmed(planning, output)):
            proposed = planning.proposal.plan
            repository = without_notes(place.repository)
            if is_configured(settings):
                warn_of_missing_programs(joined.fleet, proposed.subtasks)
            code = submit_and_attend(joined, proposed, repository, as_json=as_json, no_progress=no_progress)
    raise typer.Exit(code)


def _check_options(output: Path, *, run: bool, yes: bool, as_json: bool, force: bool) -> None:
    """All that can be said before anything is started or paid for."""
    from orchestrator.cli.files import require_new, require_place_for

    if output == STDOUT:
        if run or as_json:
            raise typer.BadParameter("stdout is for the plan: leave out --run and --json", param_hint="--output")
    else:
        require_place_for(output)
        if not force:
            require_new(output)
    if run and not yes and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter("there is nobody to ask: say --yes as well", param_hint="--run")


def _seconds(timeout: str) -> float:
    from orchestrator.plan.values import MAX_DURATION_SECONDS, seconds_in

    seconds = seconds_in(timeout)
    if seconds is None or not 0 < seconds <= MAX_DURATION_SECONDS:
        raise typer.BadParameter(f"'{timeout}' is no duration such as 90s, 10m or 1h", param_hint="--timeout")
    return seconds


def _confirmed(planning: Planning, output: Path) -> bool:
    from orchestrator.cli.render import say
    from orchestrator.text import plural

    assert planning.proposal is not None, "there is a plan to be confirmed"
    total = sum(len(group.subtasks) for group in planning.proposal.plan.groups)
    not_run = f"Not run. To run it: orchestrator run {output}"
    try:
        if typer.confirm(f"Run it, with {plural(total, 'agent')} and the checks above?", default=False, err=True):
            return True
    except typer.Abort:  # Ctrl-C at the question
        say(f"\n{not_run}")
        raise typer.Exit(130) from None
    say(not_run)
    return False
