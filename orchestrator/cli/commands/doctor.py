"""`orchestrator doctor`: what is wrong with this set-up, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.cli.checks import Check

UNHEALTHY = 3


def doctor(as_json: JsonOption = False) -> None:
    """Say what is wrong with this set-up.

    Looks at git, settings, folders, database, broker, fleet and agents. Exit code 3 if something is broken.
    """
    from orchestrator.cli.checks import check_everything
    from orchestrator.cli.render import print_json

    checks = check_everything()
    if as_json:
        print_json(
            {"healthy": all(check.state != "fail" for check in checks), "checks": [vars(check) for check in checks]}
        )
    else:
        _print(checks)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(UNHEALTHY)


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    from orchestrator.cli.render import STYLES, console

    to = console()
    for check in checks:
        line = Text.assemble((f"{check.state:<5}", STYLES[check.state]), f"{check.name:<23} {check.found}")
        to.print(line, soft_wrap=True)
        if check.remedy and check.state != "ok":
            to.print(Text(f"{'':<29}{check.remedy}", style="dim"), soft_wrap=True)
    failed = sum(1 for check in checks if check.state == "fail")
    warned = sum(1 for check in checks if check.state == "warn")
    to.print(f"\n{failed} failed, {warned} to look at." if failed or warned else "\nAll is well.")
