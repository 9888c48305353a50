"""What the model is to do, carried by the prompt itself: the server keeps no state but counters, so a session can go on.

    script = Script(write("a.txt"), say("Done."), faults=[Fault(step=0, status=429, times=1, retry_after_seconds=1)])
    plan["subtasks"][0]["description"] = script.prompt

A step is one answer of the model. Which one is due follows from the tool results that stand in the request after the
script: none, the first.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

_MARKER: Final = re.compile(r"\[\[script:([A-Za-z0-9_=-]+)\]\]")

Hang = Literal["before_first_byte", "before_last_event", "after_last_event"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a step, `times` times (None: always), before the step's answer is given."""

    step: int = 0
    status: int | None = None
    times: int | None = None
    retry_after_seconds: int | None = None
    hang: Hang | None = None
    drop: bool = False
    """The connection is closed in the middle of the stream."""


@dataclass(frozen=True)
class Step:
    """`shell` is a command for whichever tool runs commands, `write` a path for whichever tool writes files, `say` the
    model's last words."""

    kind: Literal["shell", "write", "say"]
    value: str
    content: str = ""


def shell(command: str) -> Step:
    return Step("shell", command)


def write(path: str, content: str = "written\n") -> Step:
    return Step("write", path, content)


def say(text: str) -> Step:
    return Step("say", text)


@dataclass(frozen=True)
class Script:
    """`nonce` tells the runs of equal scripts apart: each has its own counters."""

    steps: Sequence[Step]
    faults: Sequence[Fault] = ()
    nonce: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def prompt(self) -> str:
        """Base64, because some programs quote their prompt once more."""
        return f"[[script:{base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()}]]"

    def step(self, number: int) -> Step:
        """A model that is asked on after its last words says them again."""
        return self.steps[min(number, len(self.steps) - 1)]


def find_script(text: str) -> Script | None:
    """The last script in the text."""
    markers = _MARKER.findall(text)
    return _script(json.loads(base64.urlsafe_b64decode(markers[-1]))) if markers else None


def _script(said: Mapping[str, Any]) -> Script:
    steps = [Step(**step) for step in said["steps"]]
    return Script(steps, [Fault(**fault) for fault in said["faults"]], said["nonce"])
