"""`orchestrator workers`: who is there, and what their agents' providers allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.access.nodes import Node
    from orchestrator.settings import Settings
    from orchestrator.state.views import AccountView


def workers(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these, such as worker-1@host; exit code 3 if one is silent."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show who answers, how busy they are, and what their agents' providers allow."""
    from orchestrator.access.nodes import look_at_fleet
    from orchestrator.cli import documents
    from orchestrator.cli.render import print_json
    from orchestrator.errors import ServiceUnavailable
    from orchestrator.local.client import Need, local_stack
    from orchestrator.settings import load_settings

    with local_stack(load_settings(), need=Need.SERVICES) as stack:
        nodes = look_at_fleet(stack.settings, names or ())
        # Who asks after one process wants an answer of that one alone.
        accounts = None if names else look_at_accounts(stack.settings)
    silent = sorted(set(names or ()) - {node.name for node in nodes})
    if silent:
        raise ServiceUnavailable(
            f"{', '.join(silent)} did not answer.",
            context={"silent": silent},
            recovery="`orchestrator workers` shows who does.",
        )
    if as_json:
        shown = None if accounts is None else [documents.account(account) for account in accounts]
        print_json({"workers": [_document(node) for node in nodes], "accounts": shown})
        return
    _print_nodes(nodes)
    if accounts:
        print()
        _print_accounts(accounts)


def look_at_accounts(settings: Settings) -> list[AccountView] | None:
    """The providers' accounts that there is something to say of; None, with a warning, where the database can't tell."""
    from orchestrator.cli.render import say
    from orchestrator.errors import OrchestratorException
    from orchestrator.state import provider_limits
    from orchestrator.state.engine import create_engine, translated

    engine = create_engine(settings.database_url or "", pool_size=1)
    try:
        with translated(), engine.connect() as connection:
            return provider_limits.accounts(connection)
    except OrchestratorException as error:
        say(f"warning: What providers allow is not known: {error.message}")
        return None
    finally:
        engine.dispose()


def _document(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "role": _role(node.is_dispatcher, node.is_worker),
        "slots": node.slots,
        "busy": node.busy,
        "queues": list(node.queues),
        "capabilities": list(node.capabilities),
    }


def _print_nodes(nodes: Sequence[Node]) -> None:
    from orchestrator.cli.render import console, print_table

    if not nodes:
        print("No worker and no dispatcher answers. `orchestrator up` starts some on this machine.")
        return
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


def _print_accounts(accounts: Sequence[AccountView]) -> None:
    from orchestrator.cli.describe import limit_words
    from orchestrator.cli.render import console, print_table

    rows = [
        (
            view.account.provider,
            view.account.model,
            view.account.key_hash,
            view.running,
            view.waiting,
            limit_words(view),
        )
        for view in accounts
    ]
    print_table(console(), ("provider", "model", "key", "running", "waiting", "limit"), rows)


def _role(is_dispatcher: bool, is_worker: bool) -> str:
    if is_dispatcher and is_worker:
        return "both"
    return "dispatcher" if is_dispatcher else "worker"
