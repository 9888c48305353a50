"""`orchestrator dispatcher`: a process that starts jobs, merges groups and reconciles."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import LogLevelOption


def dispatcher(
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name in the fleet, unique on this host. Default: a random one."),
    ] = None,
    log_level: LogLevelOption = "info",
) -> None:
    """Start jobs, merge groups and reconcile for the fleet.

    A fleet needs one; several share the work.
    """
    from orchestrator.access.connect import require_services
    from orchestrator.cli import processes
    from orchestrator.settings import load_settings

    require_services(load_settings(), "A dispatcher")
    processes.become(processes.dispatcher(name=name, log_level=log_level))
