"""Every error that this project raises on purpose.

    OrchestratorException               context and recovery; exit code 1
    ├── BadInput                        the user can mend it; exit code 2
    │   ├── PlanError                   a plan breaks rules; carries every fault
    │   ├── RepositoryError             a repository, base or branch can't be used
    │   ├── UnknownJob                  no job has that id or prefix, or several have
    │   ├── IllegalRequest              right words, wrong time: retry of a running job
    │   └── ConfigurationError          settings that contradict each other, a missing program
    ├── ServiceUnavailable              a service can't be reached; exit code 3
    │   ├── DatabaseUnavailable
    │   ├── BrokerUnavailable
    │   └── LocalStackError             the embedded stack did not start
    ├── ProposalError                   an agent was asked for a plan and gave none; carries the faults of its last answer
    ├── GitError                        a git command failed in a way nobody asked for
    ├── AgentException                  raised by a plugin of yours; it becomes its attempt's outcome
    └── LeaseLost                       somebody else holds the right to this work

An agent that fails is an outcome (`orchestrator.outcomes`), never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class OrchestratorException(Exception):  # noqa: N818 - the name is part of the public API
    """Base of the tree.

    `message` is one sentence. `context` holds the values that the sentence speaks of, ready for a log.
    `recovery` is what the reader can do now, in words; empty where nothing can be done.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, context: Mapping[str, Any] | None = None, recovery: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.context = dict(context or {})
        self.recovery = recovery

    def __str__(self) -> str:
        return f"{self.message} {self.recovery}".strip()


class BadInput(OrchestratorException):
    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One broken rule of a plan: where it is, what is wrong, how to mend it. `line` counts from 1."""

    message: str
    field: str = ""
    line: int | None = None
    hint: str = ""


class PlanError(BadInput):
    """The plan breaks one or more rules; `faults` names them all, in the order of the file."""

    def __init__(self, faults: Sequence[Fault], *, source: str = "the plan") -> None:
        self.faults = tuple(faults)
        self.source = source
        count = len(self.faults)
        super().__init__(
            f"{source} has {count} fault{'s' if count != 1 else ''}: "
            + "; ".join(fault.message for fault in self.faults),
            context={"source": source, "faults": [vars(fault) for fault in self.faults]},
        )


class RepositoryError(BadInput):
    pass


class UnknownJob(BadInput):
    pass


class IllegalRequest(BadInput):
    pass


class ConfigurationError(BadInput):
    pass


class ServiceUnavailable(OrchestratorException):
    exit_code = 3


class DatabaseUnavailable(ServiceUnavailable):
    pass


class BrokerUnavailable(ServiceUnavailable):
    pass


class LocalStackError(ServiceUnavailable):
    pass


class ProposalError(OrchestratorException):
    """An agent was asked for a plan and gave none. `faults` are those of its last answer; none where it gave no answer."""

    source: ClassVar[str] = "the proposal"

    def __init__(self, message: str, *, faults: Sequence[Fault] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.faults = tuple(faults)
        self.context["faults"] = [vars(fault) for fault in self.faults]


class GitError(OrchestratorException):
    pass


class AgentException(OrchestratorException):
    """What an `AgentPlugin` may raise to say how its attempt ends.

    `outcome` is a word of `orchestrator.outcomes.Outcome`, for instance `rate_limited`. `retry_after_seconds` is the
    provider's wish.
    """

    def __init__(
        self, message: str, *, outcome: str = "failed", retry_after_seconds: float | None = None, **more: Any
    ) -> None:
        super().__init__(message, **more)
        self.outcome = outcome
        self.retry_after_seconds = retry_after_seconds


class LeaseLost(OrchestratorException):
    pass
