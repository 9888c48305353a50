"""`orchestrator validate`: check a plan, and show what would run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import JsonOption


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
    from orchestrator.cli.plan_view import plan_document, print_plan
    from orchestrator.cli.plans import read_plan
    from orchestrator.cli.render import print_json
    from orchestrator.settings import load_settings

    if schema:
        from orchestrator.plan.validate import plan_schema

        print(json.dumps(plan_schema(), indent=2, ensure_ascii=False))
        return
    if plan is None:
        raise typer.BadParameter("name a plan, or ask for --schema", param_hint="PLAN")
    validated = read_plan(plan, load_settings(), tell_warnings=False)
    if as_json:
        print_json({"valid": True, **plan_document(validated)})
    else:
        print_plan(validated)
