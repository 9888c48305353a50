"""Supervising real programs in tests: the arguments that a test does not care about have values here."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestrator.supervisor import Ending, StopSignal, supervise


def new_cookie() -> str:
    return f"test-{uuid.uuid4().hex}"


def is_alive(pid: int) -> bool:
    """A zombie is not: its end waits only to be noticed, and who should notice may be a lazy init."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Supervision:
    """One supervised program: `run` gives its ending, `lines` what it wrote as (stream, text)."""

    cwd: Path
    timeout_seconds: float | None = 60.0
    idle_timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    stop: StopSignal = field(default_factory=StopSignal)
    cookie: str = field(default_factory=new_cookie)
    lines: list[tuple[str, str]] = field(default_factory=list)
    on_line: Callable[[str, str], None] | None = None
    stdin_file: Path | None = None

    def run(self, argv: Sequence[str]) -> Ending:
        return supervise(
            argv,
            cwd=self.cwd,
            env=dict(os.environ),
            timeout_seconds=self.timeout_seconds,
            idle_timeout_seconds=self.idle_timeout_seconds,
            kill_grace_seconds=self.kill_grace_seconds,
            on_line=self.on_line or (lambda stream, text: self.lines.append((stream, text))),
            stop=self.stop,
            cookie=self.cookie,
            stdin_file=self.stdin_file,
        )

    def bash(self, command: str) -> Ending:
        return self.run(["bash", "-c", command])

    def python(self, program: str) -> Ending:
        return self.run([sys.executable, "-I", "-S", "-c", program])
