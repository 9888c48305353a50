"""Arguments and options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def _jobs_that_begin(incomplete: str) -> list[tuple[str, str]]:
    from orchestrator.cli.completion import jobs_that_begin

    return jobs_that_begin(incomplete)


def _agents_that_begin(incomplete: str) -> list[str]:
    from orchestrator.cli.completion import agents_that_begin

    return agents_that_begin(incomplete)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON (docs/json.md) instead of text.")]
NoProgressOption = Annotated[
    bool, typer.Option("--no-progress", help="Print one line an event instead of a live view.")
]
PlanArgument = Annotated[
    # A file that can't be read is told like every other fault of a plan's file.
    Path, typer.Argument(metavar="PLAN", help="The plan: a YAML or JSON file.", readable=False)
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, or the beginning of one.", autocompletion=_jobs_that_begin)
]
NewestJobArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="JOB",
        help="A job's id, or the beginning of one. Default: the newest job.",
        autocompletion=_jobs_that_begin,
    ),
]
AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="NAME", help="In place of the plan's default agent.", autocompletion=_agents_that_begin
    ),
]
PlannerOption = Annotated[
    str,
    typer.Option(
        "--agent",
        metavar="NAME",
        help="Who proposes the plan, and works at it unless you change that in the file.",
        autocompletion=_agents_that_begin,
    ),
]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="What it logs.")
]
