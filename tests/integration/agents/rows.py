"""The rows of the conformance table: what the model does, and what must come of it, for each program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.model_server.script import Fault, Step, say, shell

CHANGE: Final = shell("echo hi > a.txt")
DONE: Final = say("Done: it is there.")
SLEEP: Final = shell("echo hi > started.txt; sleep 300")
NOWHERE: Final = "http://127.0.0.1:9"
"""Nobody listens there: the port of `discard`."""

Expected = Mapping[str, tuple[str, int | None]]
"""By the program's name: the first attempt's outcome, and the requests that the model must have seen (None: any)."""


@dataclass(frozen=True)
class Row:
    title: str
    expected: Expected
    steps: Sequence[Step] = (CHANGE, DONE)
    faults: Sequence[Fault] = ()
    agent: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the agent's configuration, for those that know them."""
    subtask: Mapping[str, Any] = field(default_factory=dict)
    signal: Literal["TERM", "INT", "KILL"] | None = None
    """Sent to the program once its tool is at work."""
    tokens_unknown_to: frozenset[str] = frozenset()
    """Programs that do not tell all tokens at this end; of all others what is recorded must be what the model counted."""
    by_program: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More words of the subtask, for one program."""
    refused: bool = False
    """No model listens."""


def _all(outcome: str, claude: int | None, codex: int | None, mini: int | None, gemini: int | None) -> Expected:
    requests = {"claude-code": claude, "codex": codex, "mini-swe-agent": mini, "gemini": gemini}
    return {name: (outcome, number) for name, number in requests.items()}


def _three(claude: tuple[str, int | None], codex: tuple[str, int | None], gemini: tuple[str, int | None]) -> Expected:
    return {"claude-code": claude, "codex": codex, "gemini": gemini}


def _always(**fault: Any) -> Sequence[Fault]:
    return (Fault(**fault),)


SIGNALLED: Final = frozenset({"mini-swe-agent", "gemini"})
"""They write a call's tokens down when the call's tool has ended, at their own end, or not at all."""

IDLE: Final = {"idle_timeout": 25}
SLOWER: Final = {"mini-swe-agent": {"idle_timeout": 60}}
"""On a busy machine a program may be silent for long before it asks its model for the first time, that one above all."""

ROWS: Final = (
    Row("success with a file changed", _all("completed", 2, 2, 2, 2)),
    Row(
        "nothing changed though required",
        _all("no_changes", 2, 2, 2, 2),
        steps=(shell("cat nowhere.txt"), DONE),  # a command that fails for reasons of its own is no refusal
    ),
    Row("a tool that fails", _all("completed", 3, 3, 3, 3), steps=(shell("echo oops >&2; exit 3"), CHANGE, DONE)),
    Row(
        "permission denied",
        _three(("permission_denied", 2), ("permission_denied", 2), ("permission_denied", 2)),
        steps=(shell("python3 -c \"open('.git/a.txt', 'w')\""), DONE),
        agent={"allowed_tools": []},
        subtask={"permissions": "edit"},
    ),
    Row(
        "`permissions: read-only`, though the model wants to write",
        _three(("permission_denied", 2), ("permission_denied", 2), ("permission_denied", 2)),
        steps=(shell("echo hi > a.txt"), DONE),
        agent={"allowed_tools": []},
        subtask={"permissions": "read-only", "expect_changes": True},
    ),
    Row(
        "`permissions: full`, for what a sandbox refuses",
        _all("completed", 2, 2, 2, 2),
        steps=(shell("python3 -c \"import socket; socket.socket(); open('a.txt', 'w').write('hi\\n')\""), DONE),
        agent={"allowed_tools": []},
        subtask={"permissions": "full"},
    ),
    Row("401", _all("auth_error", 3, 2, 1, 1), faults=_always(status=401)),
    Row(
        "429 once with Retry-After, then success",
        _all("completed", 3, 3, 3, 3),
        faults=_always(status=429, times=1, retry_after_seconds=1),
    ),
    Row("429 for ever", _all("rate_limited", 3, 1, None, 2), faults=_always(status=429)),
    Row("500", _all("provider_unavailable", 3, 4, None, 2), faults=_always(status=500)),
    Row(
        "529",
        # Its library tells no status that it has no name for.
        {
            **_three(("rate_limited", 3), ("rate_limited", 4), ("rate_limited", 2)),
            "mini-swe-agent": ("provider_unavailable", None),
        },
        faults=_always(status=529),
    ),
    Row("connection refused", _all("provider_unavailable", 0, 0, 0, 0), refused=True),
    Row(
        "dropped stream",
        {**_all("completed", None, None, None, None), "gemini": ("provider_unavailable", 2)},
        faults=_always(drop=True, times=1, step=1),
    ),
    Row(
        "hang before the first byte",
        _all("idle_timeout", 1, 1, 1, 1),
        faults=_always(hang="before_first_byte"),
        subtask=IDLE,
        by_program=SLOWER,
    ),
    Row(
        "hang before the last event",
        dict.fromkeys(("claude-code", "codex", "gemini"), ("idle_timeout", 1)),
        faults=_always(hang="before_last_event"),
        subtask=IDLE,
        tokens_unknown_to=frozenset({"claude-code"}),  # it counts the answer that the model had not ended
    ),
    Row(
        "hang after the last event",
        _three(("idle_timeout", 2), ("completed", 2), ("idle_timeout", 2)),
        faults=_always(hang="after_last_event", step=1),
        subtask=IDLE,
        tokens_unknown_to=frozenset({"gemini"}),
    ),
    Row(
        "turn limit",
        dict.fromkeys(("claude-code", "mini-swe-agent", "gemini"), ("turn_limit", 1)),
        agent={"max_turns": 1},
    ),
    Row(
        "budget",
        {"claude-code": ("budget_exceeded", 1), "mini-swe-agent": ("budget_exceeded", 1)},
        agent={"max_budget_usd": 0.0001, "max_cost_usd": 0.0001},
    ),
    Row(
        "SIGTERM",
        _all("failed", 1, 1, 1, 1),
        steps=(SLEEP, DONE),
        signal="TERM",
        tokens_unknown_to=SIGNALLED,
    ),
    Row(
        "SIGINT",
        _all("failed", 1, 1, 1, 1),
        steps=(SLEEP, DONE),
        signal="INT",
        tokens_unknown_to=SIGNALLED,
    ),
    Row(
        "kill -9",
        _all("failed", 1, 1, 1, 1),
        steps=(SLEEP, DONE),
        signal="KILL",
        tokens_unknown_to=SIGNALLED,
    ),
    Row(
        "a child that survives",
        _all("completed", 2, 2, 2, 2),
        steps=(shell("echo hi > a.txt; setsid sleep 600 > /dev/null 2>&1 < /dev/null &"), DONE),
    ),
    Row("a prompt of 200 KB", _all("completed", 2, 2, 2, 2), subtask={"description": "word " * 40_000}),
    Row(
        "output of 50 MB",
        # Gemini ends before its own last lines have left it, its result among them.
        {**_all("completed", 2, 2, 2, 2), "gemini": ("failed", 2)},
        steps=(shell("echo hi > a.txt; head -c 50000000 /dev/zero | tr '\\0' x"), DONE),
        tokens_unknown_to=frozenset({"gemini"}),
    ),
    Row(
        "invalid UTF-8",
        _all("completed", 2, 2, 2, 2),
        steps=(shell("printf 'x\\377\\376y\\n'; echo hi > a.txt"), DONE),
    ),
)
