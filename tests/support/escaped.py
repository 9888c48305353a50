"""Agents whose processes do all they can to be overlooked, for tests of what ends them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import psutil

from tests.support.waiting import wait_until

_ESCAPE = """
import os, signal, sys, time
for name, empty in (("daemon", False), ("nameless", True)):
    if os.fork() == 0:
        if not empty:
            os.setsid()
        if os.fork() == 0:
            open(os.path.join(sys.argv[1], name + ".pid"), "w").write(str(os.getpid()))
            wait = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
            environment = {} if empty else dict(os.environ)
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", wait], environment)
        os._exit(0)
    os.wait()
open(os.path.join(sys.argv[1], "agent.pid"), "w").write(str(os.getpid()))
time.sleep(600)
"""
_NAMES = ("agent", "daemon", "nameless")


def escaping_command(folder: Path) -> str:
    """A shell command that never ends, with two processes that left it: one by a session of its own and a double fork, one
    with an emptied environment. Both ignore TERM. Each writes its number into `folder`."""
    program = shlex.join([sys.executable, "-I", "-S", "-c", _ESCAPE, str(folder)])
    return f"exec {program}"


def escaped_processes(folder: Path) -> dict[str, psutil.Process]:
    """The agent and those that left it, once all of them run."""

    def read() -> dict[str, psutil.Process] | None:
        numbers = {name: folder / f"{name}.pid" for name in _NAMES}
        if not all(file.exists() and file.read_text() for file in numbers.values()):
            return None
        return {name: psutil.Process(int(file.read_text())) for name, file in numbers.items()}

    return wait_until(read, "the agent and its escaped processes run")


def wait_until_gone(processes: dict[str, psutil.Process], *, timeout_seconds: float) -> None:
    wait_until(
        lambda: not [name for name, process in processes.items() if _lives(process)],
        f"{', '.join(processes)} are gone",
        timeout_seconds=timeout_seconds,
    )


def alive(processes: dict[str, psutil.Process]) -> list[str]:
    return [name for name, process in processes.items() if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
