"""Which agents exist, by name, and whether a plan's configuration of one can be used.

Two doors lead in: the entry points `orchestrator.agents` of installed packages (the built-in agents too), and classes
registered with `@register_agent` in the modules that the setting `agent_modules` names. The control plane knows names
and reads configuration models; what a class does is the workers' business (`workers.agents.protocol`).
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings, load_settings

ENTRY_POINT_GROUP: Final = "orchestrator.agents"

AgentClass = TypeVar("AgentClass", bound=type)

_registered: dict[str, type] = {}


@dataclass(frozen=True)
class AgentEntry:
    """One name under which an agent is known, and where its class is found. Nothing is imported until `load`."""

    name: str
    origin: str
    find: Callable[[], Any]
    installed: bool = True
    """It came by an entry point; else only processes that import its module know it."""

    def load(self) -> Any:
        """The agent's class, a subclass of `workers.agents.protocol.Agent` or of `orchestrator.agent_plugin.AgentPlugin`.

        Raises `ConfigurationError` if it can't be imported, or is no class with a `config_model`.
        """
        try:
            found = self.find()
        except Exception as error:
            raise ConfigurationError(
                f"The agent {self.name} can't be loaded from {self.origin}: {error}.",
                context={"agent": self.name, "origin": self.origin},
                recovery="Mend or uninstall the package that brings it.",
            ) from error
        model = getattr(found, "config_model", None)
        if not (isinstance(found, type) and isinstance(model, type) and issubclass(model, BaseModel)):
            raise ConfigurationError(
                f"The agent {self.name} from {self.origin} is no class with a config_model.",
                context={"agent": self.name, "origin": self.origin},
                recovery="Derive it from orchestrator.AgentPlugin, or from workers.agents.protocol.Agent.",
            )
        return found


def register_agent(name: str) -> Callable[[AgentClass], AgentClass]:
    """Class decorator: make an agent known by this name, in every process that imports its module.

    The class itself comes back. Raises `ConfigurationError` if another class has the name.
    """

    def register(found: AgentClass) -> AgentClass:
        other = _registered.setdefault(name, found)
        if _origin(other) != _origin(found):
            raise _taken(name, _origin(other), _origin(found))
        _registered[name] = found  # the same class again: its module was imported anew
        return found

    return register


def known_agents(settings: Settings) -> dict[str, AgentEntry]:
    """Every agent of this installation, by name, in the order of names.

    Imports the modules that `settings.agent_modules` names, and nothing else. Raises `ConfigurationError` when one of
    them can't be imported, or when two different classes claim a name.
    """
    for module in settings.agent_modules:
        _import(module)
    entries: dict[str, AgentEntry] = {}
    for point in _entry_points(tuple(sys.path)):
        _add(entries, AgentEntry(point.name, point.value, point.load))
    for name, found in _registered.items():
        _add(entries, _entry_of(name, found))
    return dict(sorted(entries.items()))


def require_agent(name: str, known: Mapping[str, AgentEntry]) -> AgentEntry:
    """The entry of that name. Raises `ConfigurationError` that lists the known ones: there is no stand-in."""
    if name in known:
        return known[name]
    raise ConfigurationError(
        f"{_unknown(name, known)}.",
        context={"agent": name, "known": sorted(known)},
        recovery="Install the package that brings it, or name its module in ORCHESTRATOR_AGENT_MODULES.",
    )


def check_agent(name: str, config: Mapping[str, Any], known: Mapping[str, AgentEntry] | None = None) -> list[str]:
    """What is wrong with a plan's `agent: {name: …, **config}`: one clause a fault, without a period; empty when all is well.

    `known` is what `known_agents` gives, for this process' settings if left out; pass it when there are many to check.
    """
    if known is None:
        known = known_agents(load_settings())
    if name not in known:
        return [_unknown(name, known)]
    try:
        model = known[name].load().config_model
    except ConfigurationError as error:
        return [error.message.removesuffix(".")]
    try:
        model.model_validate(dict(config))
    except ValidationError as error:
        return [f"agent {name}: {fault}" for fault in _in_words(error, model)]
    return []


def check_permissions(permissions: str, entry: AgentEntry) -> str | None:
    """Why the agent can't be held to that ceiling, as a clause without a period; None if it can, or can't be loaded."""
    try:
        kept: Collection[str] | None = getattr(entry.load(), "permissions", None)
    except ConfigurationError:
        return None
    if kept is None:
        return f"the agent {entry.name} can't be kept from changing files" if permissions == "read-only" else None
    if permissions in kept:
        return None
    return f"the agent {entry.name} can't be held to `permissions: {permissions}`, only to {' or '.join(sorted(kept))}"


def _in_words(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        match fault["type"]:
            case "extra_forbidden":
                keys = ", ".join(model.model_fields) or "none"
                yield f'unknown key "{key}"{_did_you_mean(key, model.model_fields)}; known keys: {keys}'
            case "missing":
                yield f'the key "{key}" is missing'
            case _:
                message = fault["msg"].removeprefix("Value error, ")
                yield f"{key}: {message}" if key else message


def _unknown(name: str, known: Iterable[str]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f'unknown agent "{name}"{_did_you_mean(name, known)}; known agents: {names}'


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


@cache
def _entry_points(_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is installed there. It does not change under a process, and reading it takes milliseconds."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"The module {module} can't be imported: {error}.",
            context={"module": module},
            recovery="Correct ORCHESTRATOR_AGENT_MODULES, or make the module importable here.",
        ) from error


def _entry_of(name: str, found: type) -> AgentEntry:
    return AgentEntry(name, _origin(found), lambda: found, installed=False)


def _add(entries: dict[str, AgentEntry], entry: AgentEntry) -> None:
    other = entries.setdefault(entry.name, entry)
    if other.origin != entry.origin:
        raise _taken(entry.name, other.origin, entry.origin)


def _origin(found: type) -> str:
    return f"{found.__module__}:{found.__qualname__}"


def _taken(name: str, first: str, second: str) -> ConfigurationError:
    return ConfigurationError(
        f"The agent name {name} is claimed by {first} and by {second}.",
        context={"agent": name, "origins": [first, second]},
        recovery="Rename one of them: a plan must mean one agent.",
    )
