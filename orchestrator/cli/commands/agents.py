"""`orchestrator agents`: which agents can be named in plans, and whether they can run here."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.options import JsonOption


def agents(as_json: JsonOption = False) -> None:
    """Show the agents that plans can name, and their versions here."""
    from orchestrator.cli.render import console, print_json, print_table
    from orchestrator.settings import load_settings

    found = look_at_agents(load_settings())
    if as_json:
        print_json({"agents": found})
        return
    rows = [
        (
            agent["name"],
            "ok" if agent["supported"] else "warn" if agent["found"] else "missing",
            agent["version"] or "–",
            "yes" if agent["expects_changes"] else "no",
            _in_words(agent["capabilities"]),
            ", ".join(agent["permissions"] or ["–"]),
            agent["note"],
        )
        for agent in found
    ]
    print_table(console(), ("agent", "state", "version", "must change files", "can", "held to", ""), rows)


def _in_words(capabilities: dict[str, Any] | None) -> str:
    can = [name.replace("_", " ") for name, value in (capabilities or {}).items() if value]
    return ", ".join(can) or "–"


def look_at_agents(settings: Any) -> list[dict[str, Any]]:
    """Each known agent with its version on this machine, in the order of names. An agent that can't be loaded says why."""
    from concurrent.futures import ThreadPoolExecutor

    from orchestrator.agent_names import known_agents

    entries = known_agents(settings).values()
    # Each asks a program for its version, which may take seconds.
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(_look, entries))


def _look(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from orchestrator.agent_plugin import AgentPlugin
    from orchestrator.errors import OrchestratorException

    document = {
        "name": entry.name,
        "found": False,
        "version": None,
        "supported": False,
        "path": None,
        "expects_changes": None,
        "capabilities": None,
        "permissions": None,
        "note": "",
    }
    try:
        agent = entry.load()
        if issubclass(agent, AgentPlugin):
            note = f"the Python class {entry.origin}"
            expects = agent.expects_changes
            return document | {"found": True, "supported": True, "expects_changes": expects, "note": note}
        version = agent().version()
    except OrchestratorException as error:
        return document | {"note": error.message}
    return document | {
        "found": version.found,
        "version": version.version,
        "supported": version.supported,
        "path": str(version.path) if version.path else None,
        "expects_changes": bool(agent.expects_changes),
        "capabilities": asdict(agent.capabilities),
        "permissions": None if agent.permissions is None else sorted(agent.permissions),
        "note": version.note,
    }
