"""Which agent works, as a caller in Python chooses it: what travels to the workers is a name and a JSON configuration.

    agent = AgentRegistry.get("claude_code_local")()
    agent.initialize({"workspace_path": "/srv/shop", "timeout": 300, "dangerous": True})

Nothing runs on the caller's side. The keys of the original coordinator's configurations mean:

| key | becomes |
|---|---|
| `workspace_path` | the plan's `repo`: each attempt works in a clone of it, and the results are merged there |
| `timeout` | the deadline of one attempt, in seconds |
| `headless` | nothing: `True` is how agents run here, `False` is refused |
| `dangerous` | `permissions: full` for agents' programs; others refuse it |

Every other key is the agent's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ValidationError

from orchestrator.agent_names import AgentEntry, check_agent, known_agents, register_agent, require_agent
from orchestrator.agent_plugin import AgentPlugin
from orchestrator.environment import agent_environment
from orchestrator.errors import ConfigurationError
from orchestrator.plan.model import AgentSpec, Permissions, ResolvedSubtask
from orchestrator.settings import Settings, load_settings


class ChosenAgent:
    """An agent that will work elsewhere: its registered name, its configuration, and what that says about the job."""

    name: ClassVar[str]
    entry: ClassVar[AgentEntry]

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.repo: str | None = None
        self.timeout_seconds: float | None = None
        self.permissions: Permissions | None = None

    def initialize(self, config: Mapping[str, Any]) -> None:
        """Remember the configuration; a second call takes the place of the first.

        Raises `ConfigurationError` for a `workspace_path` that is no git repository, and for whatever the agent's own
        configuration does not know.
        """
        own = dict(config)
        self.repo = _repository(own.pop("workspace_path", None))
        self.timeout_seconds = _timeout(own if self.is_plugin else {"timeout": own.pop("timeout", None)})
        self.permissions = None if self.is_plugin else _without_seeds_words(own, self.entry)
        self.config = own
        faults = check_agent(self.name, own, {self.name: self.entry}) or _not_json(self.name, own)
        if faults:
            raise ConfigurationError(
                f"{faults[0]}.", context={"agent": self.name, "faults": faults}, recovery="Correct the configuration."
            )

    @property
    def is_plugin(self) -> bool:
        """Whether a Python class answers to the name: it gets every key that is not the job's."""
        return issubclass(self.entry.load(), AgentPlugin)

    @property
    def spec(self) -> AgentSpec:
        return AgentSpec(name=self.name, config=self.config)

    def cleanup(self) -> None:
        """Nothing was started here, so there is nothing to end."""


class AgentRegistry:
    """The agents of this installation, for callers. `settings` default to those of this process."""

    register = staticmethod(register_agent)

    @staticmethod
    def get(name: str, settings: Settings | None = None) -> type[ChosenAgent]:
        """A class whose objects stand for the agent of that name. Raises `ConfigurationError` that lists the known
        names; there is never a stand-in."""
        entry = require_agent(name, known_agents(settings or load_settings()))
        entry.load()
        return type("ChosenAgent", (ChosenAgent,), {"name": name, "entry": entry})

    @staticmethod
    def names(settings: Settings | None = None) -> list[str]:
        return list(known_agents(settings or load_settings()))


AgentFactory = str | AgentSpec | Callable[[], ChosenAgent | AgentPlugin]
"""A registered name, a name with its configuration, or a function that returns an agent."""


def choose_agent(factory: AgentFactory, settings: Settings) -> ChosenAgent:
    """Call the factory, once, and take what travels of the agent that it returns.

    Raises `ConfigurationError` for an unknown name, for a class that workers can't import, and for anything that is
    no agent.
    """
    if isinstance(factory, str | AgentSpec):
        name, config = (factory, {}) if isinstance(factory, str) else (factory.name, factory.config)
        chosen = AgentRegistry.get(name, settings)()
        chosen.initialize(config)
    else:
        made = factory()
        chosen = _of_plugin(made, settings) if isinstance(made, AgentPlugin) else made
    if not isinstance(chosen, ChosenAgent):
        raise ConfigurationError(
            f"The agent factory returned {type(chosen).__name__}, which is no agent.",
            recovery="Return AgentRegistry.get(name)(), or name the agent in place of the factory.",
        )
    _require_reachable(chosen.entry, settings)
    return chosen


def program_of(spec: AgentSpec, entry: AgentEntry) -> str | None:
    """The program that has to be there for the agent: a name for the PATH, or the path that the plan names. None where
    it needs none."""
    program = getattr(entry.load(), "program", None)
    if not isinstance(program, str):
        return None
    path = spec.config.get("path")
    return path if isinstance(path, str) and path else program


def require_program(spec: AgentSpec, settings: Settings) -> None:
    """Raise `ConfigurationError` where the agent's program is not on this machine, or too old: before a local stack is
    started. A program at a path of the plan's is asked for its version where it is to work."""
    entry = require_agent(spec.name, known_agents(settings))
    program = program_of(spec, entry)
    if program is None:
        return
    agent = entry.load()
    path = agent_environment(allow=(), extra={}, cookie="")["PATH"]
    if shutil.which(program, path=path) is None:
        raise ConfigurationError(
            f"The agent {spec.name} needs the program {program}, which is not on the PATH.",
            context={"agent": spec.name, "program": program},
            recovery="Install it, or choose another agent; `orchestrator agents` shows what there is.",
        )
    if not agent.oldest_version or program != agent.program:
        return
    found = agent().version()
    if found.is_too_old:
        raise ConfigurationError(
            f"The agent {spec.name} can't use {found.path}, version {found.version}: {found.note}.",
            context={"agent": spec.name, "program": program, "version": found.version},
            recovery="Update it, or choose another agent; `orchestrator agents` shows what there is.",
        )


def require_programs(subtasks: Iterable[ResolvedSubtask], settings: Settings) -> None:
    """The same for each agent of a job."""
    agents = [subtask.agent for subtask in subtasks]
    for spec in {(one.name, str(one.config.get("path"))): one for one in agents}.values():
        require_program(spec, settings)


def _of_plugin(made: AgentPlugin, settings: Settings) -> ChosenAgent:
    """A plugin's object was made here, and may hold something: it is cleaned up, and only its configuration travels."""
    try:
        names = [name for name, entry in known_agents(settings).items() if _is_class_of(made, entry)]
        if not names:
            raise ConfigurationError(
                f"The class {type(made).__qualname__} is registered under no name.",
                recovery='Put @register_agent("name") above it.',
            )
        if made.config is None and type(made).initialize is not AgentPlugin.initialize:
            raise ConfigurationError(
                f"The agent {names[0]} does not remember its configuration.",
                context={"agent": names[0]},
                recovery="Call super().initialize(config) in its initialize, and initialize it in the factory.",
            )
        chosen = AgentRegistry.get(names[0], settings)()
        chosen.initialize(made.config or {})
        return chosen
    finally:
        made.cleanup()


def _is_class_of(made: AgentPlugin, entry: AgentEntry) -> bool:
    return entry.origin == f"{type(made).__module__}:{type(made).__qualname__}"


def _require_reachable(entry: AgentEntry, settings: Settings) -> None:
    importable = "<locals>" not in entry.origin and not entry.origin.startswith("__main__:")
    if importable and (entry.installed or settings.agent_modules):
        return
    raise ConfigurationError(
        f"The agent {entry.name} is known in this process only: workers can't import {entry.origin}.",
        context={"agent": entry.name, "origin": entry.origin},
        recovery="Put its class into a module of its own and name that in ORCHESTRATOR_AGENT_MODULES.",
    )


def _repository(path: Any) -> str | None:
    if path is None:
        return None
    folder = Path(str(path)).expanduser()
    if not (folder / ".git").exists() and not (folder / "HEAD").is_file():
        raise ConfigurationError(
            f"The workspace_path {folder} is no git repository.",
            context={"workspace_path": str(folder)},
            recovery="Agents work in clones and their changes are merged: run `git init` there and commit once, or leave "
            "workspace_path out and each attempt gets an empty folder.",
        )
    return str(folder.resolve())


def _timeout(config: Mapping[str, Any]) -> float | None:
    seconds = config.get("timeout")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        raise ConfigurationError(f"The timeout {seconds!r} is no number of seconds.", context={"timeout": seconds})
    return float(seconds)


_WITHOUT_A_TERMINAL: Final = "Leave headless out: agents of a queue have no terminal."


def _without_seeds_words(own: dict[str, Any], entry: AgentEntry) -> Permissions | None:
    """Take the original coordinator's words out of the agent's configuration; the permissions that they ask for."""
    if not own.pop("headless", True):
        raise ConfigurationError(
            f"The agent {entry.name} can't run with a terminal.",
            context={"agent": entry.name},
            recovery=_WITHOUT_A_TERMINAL,
        )
    if not own.get("dangerous"):
        own.pop("dangerous", None)
    elif getattr(entry.load(), "permissions", None) is not None:
        del own["dangerous"]
        return "full"
    return None


def _not_json(name: str, config: Mapping[str, Any]) -> list[str]:
    try:
        AgentSpec(name=name, config=dict(config))
    except ValidationError:
        return [f"The configuration of the agent {name} is not made of JSON values, and so can't travel to a worker"]
    return []
