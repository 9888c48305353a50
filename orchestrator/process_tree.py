"""Ending every process that an agent started, also those that left its process group.

A tree is: the agent's own process, everything in its session, everything that carries its cookie, and every
descendant of those. The cookie is the variable `ORCHESTRATOR_ATTEMPT` in the environment that a process was started
with; it is inherited across `setsid`, double forks and re-parenting, and the kernel keeps it readable in
`/proc/<pid>/environ`.

Out of reach: a process that was started with an emptied environment, in a session of its own, by a parent that has
ended since; one that runs under another account, unless we are root; and a chain of processes that each fork and end
faster than /proc can be read.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

COOKIE_VARIABLE: Final = "ORCHESTRATOR_ATTEMPT"

KILL_SECONDS: Final = 5.0
"""How long killed processes may take to go. One that sits in an uninterruptible system call can take for ever."""

_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True)
class _Process:
    """One row of /proc. `start_ticks` tells two processes apart that had the same number one after the other."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    cookie: str | None


def end_tree(
    pid: int | None, *, cookie: str, grace_seconds: float, wait: Callable[[float], None] = time.sleep
) -> list[int]:
    """End the tree of `pid` and `cookie`: TERM to all of it, up to `grace_seconds` for it to go, then KILL until none is left.

    `pid` leads a session of its own and has not been reaped by its parent: an unreaped number belongs to nobody else.
    Whoever can't promise that passes None, and the cookie decides alone. `wait(seconds)` is what to do while the
    processes go; whoever holds their pipes reads them there, for a process may have to write before it can end.

    Returns the pids that could not be ended, nearly always none; at once when nothing was left. Raises OSError when
    /proc can't be read, for instance for want of file descriptors.
    """
    tree = _Tree(pid, lambda carried: carried == cookie)
    if not tree.signal(signal.SIGTERM):
        return []
    if _wait_until_gone(tree, grace_seconds, wait):
        return []
    return _kill_until_gone(tree, wait)


def find_by_cookie(cookie: str) -> list[int]:
    """The living processes that were started with this cookie, ourselves and our ancestors left out."""
    return sorted(process.pid for process in _process_list.read() if process.cookie == cookie)


def sweep(cookie_prefix: str) -> list[int]:
    """KILL every tree whose cookie begins with `cookie_prefix`: what a worker that died has left on this machine.

    No grace: these processes have had no owner for some time. Returns the pids that could not be ended.
    """
    if not cookie_prefix:
        raise ValueError("An empty prefix would end every agent of this machine.")
    return _kill_until_gone(_Tree(None, lambda carried: carried.startswith(cookie_prefix)), time.sleep)


@dataclass(frozen=True)
class _Tree:
    root: int | None
    is_ours: Callable[[str], bool]
    """Of a cookie."""

    def members(self) -> list[_Process]:
        """All of it; looked for twice before we say that there is none, as processes fork and end while we look."""
        return self._read() or self._read()

    def signal(self, number: signal.Signals) -> bool:
        """Send the signal to all of it; whether there was anybody, also if all have moved on to children by now."""
        members = self.members()
        for process in members:
            _signal(process, number)
        return bool(members)

    def _read(self) -> list[_Process]:
        processes = _process_list.read()
        members = {
            process.pid
            for process in processes
            if (process.cookie is not None and self.is_ours(process.cookie))
            or (self.root is not None and self.root in (process.pid, process.session))
        }
        while found := {p.pid for p in processes if p.parent in members and p.pid not in members}:
            members |= found
        return [process for process in processes if process.pid in members]


def _wait_until_gone(tree: _Tree, seconds: float, wait: Callable[[float], None]) -> bool:
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while tree.members():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        wait(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    return True


def _kill_until_gone(tree: _Tree, wait: Callable[[float], None]) -> list[int]:
    deadline = time.monotonic() + KILL_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while tree.signal(signal.SIGKILL):
        if time.monotonic() > deadline:
            pids = sorted(process.pid for process in tree.members())
            logger.error(
                "%d processes survived KILL: %s.",
                len(pids),
                pids,
                extra={"event": "process.survived_kill", "pids": pids},
            )
            return pids
        wait(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    return []


class _ProcessList:
    """/proc, read once for all threads that ask at the same time: two hundred agents may be ended in one moment.

    A thread gets a reading that began after it had asked. Whoever waits behind a reading that is too old for it makes
    the next one, for everybody who has asked by then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._processes: list[_Process] = []

    def read(self) -> list[_Process]:
        asked = time.monotonic()
        with self._lock:
            if self._began <= asked:
                began = time.monotonic()
                self._processes = _scan()
                self._began = began
            return self._processes


_process_list: Final = _ProcessList()


def _scan() -> list[_Process]:
    """Every living process but ourselves and our ancestors: an orchestrator inside an agent must not end itself.

    The newest come first: those that fork and end all the time are met before they have moved on.
    """
    spared = _ancestry()
    pids = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)  # noqa: PTH208 - see _read
    return [process for pid in pids if pid not in spared and (process := _read_process(pid))]


def _ancestry() -> set[int]:
    pid, line = os.getpid(), set()
    while pid and pid not in line:
        line.add(pid)
        process = _read_process(pid)
        pid = process.parent if process else 0
    return line


def _read_process(pid: int) -> _Process | None:
    """The process, or None if it has ended, also while we read. A zombie has ended: it waits for its parent only."""
    try:
        # The command stands in parentheses and may hold any character, parentheses too.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        state, parent, session, start_ticks = fields[0], int(fields[1]), int(fields[3]), int(fields[19])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None
    return None if state in b"ZX" else _Process(pid, parent, session, start_ticks, _read_cookie(pid))


def _read_cookie(pid: int) -> str | None:
    try:
        environment = b"\0" + _read(f"/proc/{pid}/environ")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # has just ended, or is another account's
        return None
    _, found, rest = environment.partition(b"\0" + COOKIE_VARIABLE.encode() + b"=")
    return rest.partition(b"\0")[0].decode(errors="replace") if found else None


def _read(path: str) -> bytes:
    """The whole file. Without pathlib, which would treble the cost of a scan."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


def _signal(process: _Process, number: signal.Signals) -> None:
    """To the process if it is still there. The descriptor pins it, so nobody who inherits the number is ever hit."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = _read_process(process.pid)
        if now is not None and now.start_ticks == process.start_ticks:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    except PermissionError:
        logger.warning(
            "Process %d runs under another account and can't be ended.",
            process.pid,
            extra={"event": "process.not_permitted", "pid": process.pid},
        )
    finally:
        os.close(descriptor)
