"""What an agent's adapter is: how to start the program, how to read it, how to judge its end.

    request ──launch──▶ argv, environment ──run by the supervisor──▶ lines ──read_line──▶ events ──classify──▶ AgentEnd
                                                          state folder ──read_files──▶ events ─┘

An adapter starts nothing and waits for nothing: the worker runs the program, keeps the deadlines and ends the tree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from orchestrator.ledger import Counted as Counted  # noqa: PLC0414 - adapters take it from here
from orchestrator.outcomes import Outcome
from orchestrator.plan.model import Permissions
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from workers.agents.versions import AgentVersion, program_version


class AgentConfig(BaseModel):
    """What a plan may say about an agent besides its name. Unknown keys are faults, found at submission."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class AgentRequest:
    """One attempt, as an adapter sees it.

    `prompt_file` holds `prompt`. `workspace` is where the agent works, `state_dir` a folder of this attempt outside of
    it, in which there is nothing but the files of the session to go on with. `permissions` is the most that the agent may do; submission has made sure that the adapter can hold it
    to that. `session_id` is a session of an earlier attempt to go on with, None to begin a new one.
    """

    prompt: str
    prompt_file: Path
    workspace: Path
    state_dir: Path
    config: Mapping[str, Any]
    title: str
    subtask_id: int
    attempt_number: int
    permissions: Permissions = "edit"
    session_id: str | None = None


@dataclass(frozen=True)
class Launch:
    """What to start, in the workspace. `env` is laid over the attempt's environment (`orchestrator.environment`).

    `stdin_file` is for programs that read their prompt there: an argument ends at 128 KiB and shows in every process
    listing. Without one, stdin is /dev/null.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin_file: Path | None = None


class EventKind(StrEnum):
    TEXT = "text"
    """The agent said something."""
    TOOL = "tool"
    """It called a tool; `data` says which."""
    TOOL_END = "tool_end"
    """A tool that it called went well, or was refused: `data["refused"]` says in words what its permissions kept it from,
    and is None where it went well."""
    SESSION = "session"
    """Its session has an id."""
    USAGE = "usage"
    """Tokens or money, as the program counts them."""
    TERMINAL = "terminal"
    """The program's own word on how it ended. The last one counts."""
    THROTTLED = "throttled"
    """Its provider has turned it away, and it asks again by itself: the fleet hears of it now. `data` may have
    `retry_after_seconds`."""
    GIVE_UP = "give_up"
    """It will try on for longer than a slot should be held: it is ended now, and `classify` says with what outcome."""


@dataclass(frozen=True)
class AgentEvent:
    """One line of the program, understood. `text` is short, for people; `data` is the adapter's own, for `classify`."""

    kind: EventKind
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentEnd:
    """An attempt's end as the agent's program tells it; changes in git and the subtask's check are judged later.

    `error` is set unless the outcome is completed. `result` is what the agent said at its end. `usage` counts tokens
    by kind (`input_tokens, output_tokens, cache_read_tokens, cache_write_tokens`), None where the program does not
    say; whether it and `cost_usd` speak of the run or of its session, the adapter's `Capabilities` say. `model` is the
    model's name, where the program tells it. `retry_after_seconds` is the provider's wish. `session_unknown`: it was asked to
    go on with a session, has done nothing, and says that it has no such session. `refused`: what its permissions kept it
    from, in words, where nothing that it tried afterwards went well; counts only if it changed nothing though it had to.
    """

    outcome: Outcome
    error: str | None = None
    result: str | None = None
    usage: Mapping[str, int] | None = None
    cost_usd: float | None = None
    model: str | None = None
    session_id: str | None = None
    retry_after_seconds: float | None = None
    session_unknown: bool = False
    refused: str | None = None


@dataclass(frozen=True)
class Capabilities:
    """What the program can do. `tokens` and `cost` say how it counts, None that it does not tell."""

    resume: bool = False
    turn_limit: bool = False
    budget: bool = False
    tokens: Counted | None = None
    cost: Counted | None = None


Config = TypeVar("Config", bound=AgentConfig)


class Agent(ABC, Generic[Config]):
    """Base of the adapters. One instance serves one attempt, from one thread.

    Make it known with `@register_agent("name")` or an entry point in the group `orchestrator.agents`.
    """

    name: ClassVar[str]
    expects_changes: ClassVar[bool] = True
    """Whether an end without any change is no success, where the plan leaves it open and there is a repository."""
    config_model: ClassVar[type[AgentConfig]] = AgentConfig
    program: ClassVar[str | None] = None
    """The program that has to be on the PATH, None if it comes with this project."""
    oldest_version: ClassVar[tuple[int, ...]] = ()
    """Older programs are refused. Empty: any will do, and none is asked for its version before an attempt."""
    capabilities: ClassVar[Capabilities] = Capabilities()
    permissions: ClassVar[frozenset[Permissions] | None] = None
    """The ceilings that it can be held to. None where the plan itself says what is run, which is then all that is."""
    session_files: ClassVar[tuple[str, ...]] = ()
    """Patterns below the state folder of the files that are a session, for programs that can `resume`; `{session_id}`
    stands for its id. They are put back by the same names for an attempt that goes on, in another workspace and perhaps
    on another machine. Files that hold logins are never among them."""
    environment: ClassVar[tuple[str, ...]] = ()
    """Variables of the worker that the program may see besides the usual ones: provider keys, addresses. `*` at the end is a wildcard."""

    providers: ClassVar[tuple[Provider, ...]] = ()
    """Whom it may ask for answers, so that the fleet keeps to their limits. Empty: nobody."""

    @classmethod
    def providers_of(cls, config: Mapping[str, Any]) -> Sequence[Provider]:
        """Those of an agent with that configuration; may differ from `providers` where it has a key `provider`."""
        return cls.providers

    def config(self, request: AgentRequest) -> Config:
        """The request's configuration, validated. Raises pydantic's ValidationError; submission has checked it before."""
        return self.config_model.model_validate(dict(request.config))  # type: ignore[return-value]

    @abstractmethod
    def launch(self, request: AgentRequest) -> Launch:
        """How to start the program. May write files that it needs into `request.state_dir`, and does nothing else."""

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        """What a line of "stdout" or "stderr" means; None if nothing. Never raises: a line is whatever it is."""
        return None

    def read_files(self, request: AgentRequest) -> Sequence[AgentEvent]:
        """What the ended program has left in `request.state_dir`, as events that follow those of its lines. What can't
        be read is left out: the program may have been killed while it wrote."""
        return ()

    @abstractmethod
    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        """How the attempt ended: no effects, and the same answer to the same ending and lines.

        For a program that was stopped (`ending.stopped`) the caller has the outcome and the error already, and takes
        the usage, the session and the result from here.
        """

    def version(self) -> AgentVersion:
        """Whether the program is there and which it is. Runs it."""
        if self.program is None:
            return AgentVersion(found=True, supported=True, note="comes with the orchestrator")
        return program_version(self.program, self.oldest_version)


def ending_in_words(ending: Ending) -> str:
    """`exit code 3`, `signal 9`: how the program ended, for an error in words."""
    return f"exit code {ending.exit_code}" if ending.signal is None else f"signal {ending.signal}"


def last_data(events: Sequence[AgentEvent], kind: EventKind) -> Mapping[str, Any]:
    """Of the last event of that kind; empty where there is none."""
    return next((event.data for event in reversed(events) if event.kind is kind), {})


def failure_in_words(ending: Ending, how: str = "") -> str:
    """A sentence on how the program ended, and the last lines of what it wrote."""
    last_lines = ending.output.last_lines()
    sentence = f"The agent ended with {ending_in_words(ending)}{', ' if how else ''}{how}."
    return f"{sentence} Its last lines:\n{last_lines}" if last_lines else sentence
