"""An agent as a Python class: for whoever has a model behind a function rather than behind a program.

    @register_agent("house-model")
    class HouseModel(AgentPlugin):
        def initialize(self, config): self.client = connect(config["url"])
        def send_prompt(self, prompt, context=None): return self.client.complete(prompt)
        def cleanup(self): self.client.close()

Each attempt makes one object in a process of its own, with the deadlines, limits and clean-up of any agent's program:

    initialize(config), once ──▶ send_prompt(prompt, context) ──▶ cleanup(), always
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from orchestrator.provider_account import Provider


class AnyConfig(BaseModel):
    """A configuration of which the plugin itself knows the keys."""

    model_config = ConfigDict(frozen=True, extra="allow")


class AgentPlugin(ABC):
    """Base of agents that are Python classes. Make one known with `@register_agent("name")` in a module that
    `ORCHESTRATOR_AGENT_MODULES` names, or by an entry point in the group `orchestrator.agents`.

    Its constructor takes no arguments. What it prints goes to the attempt's log.
    """

    config_model: ClassVar[type[BaseModel]] = AnyConfig
    """What a plan may configure; narrow it down and mistakes are found at submission."""
    expects_changes: ClassVar[bool] = True
    """Whether an end without any change is no success, where the plan leaves it open and there is a repository."""
    environment: ClassVar[tuple[str, ...]] = ()
    """Variables of the worker that it may see besides the usual ones. `*` at the end is a wildcard."""
    providers: ClassVar[tuple[Provider, ...]] = ()
    """Whom it may ask for answers, so that the fleet keeps to their limits. The key `model` in its configuration, if
    there is one, names the model."""

    usage: Mapping[str, int] | None = None
    """Tokens by kind, set by `send_prompt`: `input_tokens, output_tokens, cache_read_tokens, cache_write_tokens`."""
    cost_usd: float | None = None
    """What the prompt has cost, set by `send_prompt`."""
    config: Mapping[str, Any] | None = None
    """What `initialize` was given."""

    def initialize(self, config: Mapping[str, Any]) -> None:
        """Get ready. `config` is what the plan says of the agent, and `workspace_path`, the attempt's own folder.

        Whoever overrides it calls `super().initialize(config)`. What it raises fails the attempt.
        """
        self.config = dict(config)

    @abstractmethod
    def send_prompt(self, prompt: str, context: Mapping[str, Any] | None = None) -> str | None:
        """Do the work in the current folder, which is `workspace_path`, and return what there is to say about it.

        `context` has `subtask_id`, `title`, `attempt_number` and `workspace_path`. What it raises fails the attempt;
        an `AgentException` also says with which outcome.
        """

    def cleanup(self) -> None:  # noqa: B027 - most have nothing to clean up
        """Called at the end of every attempt, also after a failed `initialize` and when the attempt is ended from outside;
        what is left after `kill_grace_seconds` is killed."""
