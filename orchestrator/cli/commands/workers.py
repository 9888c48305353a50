"""`orchestrator workers`: who is there, and what their agents' providers allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.access.nodes import Node
    from orchestrator.access.programs import AgentProgram
    from orchestrator.settings import Settings
    from orchestrator.state.views import AccountView


def workers(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these, such as worker-1@host; exit code 3 if one is silent."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show who answers, how busy they are, which agents they could start, and what those agents' providers allow."""
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
        programs = {} if names else look_at_programs(stack.settings, nodes)
    silent = sorted(set(names or ()) - {node.name for node in nodes})
    if silent:
        raise ServiceUnavailable(
            f"{', '.join(silent)} did not answer.",
            context={"silent": silent},
            recovery="`orchestrator workers` shows who does.",
        )
    if as_json:
        shown = None if accounts is None else [documents.account(account) for account in accounts]
        print_json({"workers": [_document(node, programs.get(node.name)) for node in nodes], "accounts": shown})
        return
    _print_nodes(nodes, programs)
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


def look_at_programs(settings: Settings, nodes: Sequence[Node]) -> dict[str, list[AgentProgram]]:
    """By the name of each worker that has told it: its agents."""
    from orchestrator.access.programs import programs_at
    from orchestrator.celery_app import create_app

    workers = [node.name for node in nodes if node.is_worker]
    told: dict[str, list[AgentProgram]] = {}
    if workers:
        for one in programs_at(create_app(settings), settings.broker_url or "", workers):
            told.setdefault(one.worker, []).append(one)
    return told


def _document(node: Node, programs: Sequence[AgentProgram] | None) -> dict[str, object]:
    return {
        "name": node.name,
        "role": _role(node.is_dispatcher, node.is_worker),
        "slots": node.slots,
        "busy": node.busy,
        "queues": list(node.queues),
        "capabilities": list(node.capabilities),
        "agents": None
        if programs is None
        else [
            {
                "name": one.agent,
                "found": one.found,
                "version": one.version,
                "supported": one.supported,
                "note": one.note,
            }
            for one in programs
        ],
    }


def _print_nodes(nodes: Sequence[Node], programs: Mapping[str, Sequence[AgentProgram]]) -> None:
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
            _agents_in_words(programs.get(node.name, ())),
        )
        for node in nodes
    ]
    print_table(console(), ("name", "role", "busy", "queues", "capabilities", "agents"), rows)


def _agents_in_words(programs: Sequence[AgentProgram]) -> str:
    """Those that need a program which not every machine has, as far as it is there."""
    return ", ".join(f"{one.agent} {one.version}" for one in programs if one.version and not one.is_missing) or "–"


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
