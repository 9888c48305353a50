"""`orchestrator worker`: a process that runs agents."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import LogLevelOption


def worker(
    slots: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Agents at once. Default: the setting, 8.")
    ] = None,
    capability: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What this worker offers to subtasks that require it; may be repeated."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name in the fleet, unique on this host. Default: a random one."),
    ] = None,
    log_level: LogLevelOption = "info",
) -> None:
    """Run agents for the fleet.

    TERM ends it in order: what its agents had in hand goes back to the queue.
    """
    from orchestrator.access.connect import require_services
    from orchestrator.cli import processes
    from orchestrator.settings import load_settings

    settings = load_settings(slots=slots, capabilities=capability)
    require_services(settings, "A worker")
    processes.become(
        processes.worker(slots=settings.slots, capabilities=settings.capabilities, name=name, log_level=log_level)
    )
