"""`orchestrator workers`: who is there."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import JsonOption


def workers(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these, such as worker-1@host; exit code 3 if one is silent."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show who answers, and how busy they are."""
    from orchestrator.access.nodes import look_at_fleet
    from orchestrator.cli.render import console, print_json, print_table
    from orchestrator.errors import ServiceUnavailable
    from orchestrator.local.client import Need, local_stack
    from orchestrator.settings import load_settings

    with local_stack(load_settings(), need=Need.SERVICES) as stack:
        nodes = look_at_fleet(stack.settings, names or ())
    silent = sorted(set(names or ()) - {node.name for node in nodes})
    if silent:
        raise ServiceUnavailable(
            f"{', '.join(silent)} did not answer.",
            context={"silent": silent},
            recovery="`orchestrator workers` shows who does.",
        )
    if as_json:
        documents = [
            {
                "name": node.name,
                "role": _role(node.is_dispatcher, node.is_worker),
                "slots": node.slots,
                "busy": node.busy,
                "queues": list(node.queues),
                "capabilities": list(node.capabilities),
            }
            for node in nodes
        ]
        print_json({"workers": documents})
    elif not nodes:
        print("No worker and no dispatcher answers. `orchestrator up` starts some on this machine.")
    else:
        rows = [
            (
                node.name,
                _role(node.is_dispatcher, node.is_worker),
                f"{node.busy} of {node.slots}",
                ", ".join(node.queues),
                ", ".join(node.capabilities) or "–",
            )
            for node in nodes
        ]
        print_table(console(), ("name", "role", "busy", "queues", "capabilities"), rows)


def _role(is_dispatcher: bool, is_worker: bool) -> str:
    if is_dispatcher and is_worker:
        return "both"
    return "dispatcher" if is_dispatcher else "worker"
