"""`orchestrator validate`: check a plan, and show what would run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.plan.model import ValidatedPlan


def validate(
    plan: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="The plan: a YAML or JSON file.", readable=False)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of plans instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a plan and show the groups that would run.

    Every fault is named, with its line. Nothing is started or stored.
    """
    from orchestrator.cli.plans import read_plan
    from orchestrator.settings import load_settings

    if schema:
        from orchestrator.plan.validate import plan_schema

        print(json.dumps(plan_schema(), indent=2, ensure_ascii=False))
        return
    if plan is None:
        raise typer.BadParameter("name a plan, or ask for --schema", param_hint="PLAN")
    validated = read_plan(plan, load_settings(), tell_warnings=False)
    if as_json:
        _print_json(validated)
    else:
        _print(validated)


def _print_json(validated: ValidatedPlan) -> None:
    from orchestrator.cli.render import print_json

    groups = [
        {
            "number": group.number,
            "check": group.check,
            "subtasks": [
                {
                    "subtask_id": subtask.subtask_id,
                    "title": subtask.title,
                    "agent": subtask.agent.name,
                    "kind": subtask.kind,
                    "depends_on": list(subtask.depends_on),
                    "requires": list(subtask.requires),
                }
                for subtask in group.subtasks
            ],
        }
        for group in validated.groups
    ]
    print_json(
        {
            "valid": True,
            "title": validated.plan.title,
            "max_parallel_agents": validated.plan.max_parallel_agents,
            "digest": validated.digest,
            "warnings": list(validated.warnings),
            "groups": groups,
        }
    )


def _print(validated: ValidatedPlan) -> None:
    from orchestrator.cli.render import console, print_table
    from orchestrator.text import plural

    plan = validated.plan
    total = sum(len(group.subtasks) for group in validated.groups)
    print(f"{plan.title}: {plural(total, 'subtask')} in {plural(len(validated.groups), 'group')}, valid.")
    print(f"At most {plural(plan.max_parallel_agents, 'agent')} at once.\n")
    rows = [
        (
            group.number,
            subtask.subtask_id,
            subtask.title,
            subtask.agent.name,
            "testing" if subtask.kind == "testing" else "",
            ", ".join(f"#{other}" for other in subtask.depends_on),
        )
        for group in validated.groups
        for subtask in group.subtasks
    ]
    print_table(console(), ("group", "#", "title", "agent", "kind", "depends on"), rows)
    for warning in validated.warnings:
        print(f"warning: {warning}")
