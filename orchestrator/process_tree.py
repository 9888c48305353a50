"""Ending every process that an agent started, also those that left its process group.

A tree is: the agent's own process, everything in its session, everything that carries its cookie, everything in its
control group where it has one, and every descendant of those. The cookie is the variable `ORCHESTRATOR_ATTEMPT` in the
environment that a process was started with; it is inherited across `setsid`, double forks and re-parenting, and the
kernel keeps it readable in `/proc/<pid>/environ`.

    ORCHESTRATOR_ATTEMPT = <owner>.<attempt>
    owner                = <process namespace>-<pid>-<start ticks>     the worker that started it

Whoever reads a cookie can so tell whether its worker still lives, also after the number was given to another process.

Out of reach without a control group: a process in a session of its own, whose parent has ended since, and that was
started with an emptied environment or has closed itself to others (`closed_process`; not to root); one that runs under
another account, unless we are root; and a chain of processes that each fork and end faster than /proc can be read.

Imports nothing but the standard library: the guard of a worker runs on a bare interpreter.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator import control_group
from orchestrator.process_list import COOKIE_VARIABLE, Process, is_hidden, read_process, read_processes

logger = logging.getLogger(__name__)

KILL_SECONDS: Final = 5.0
"""How long killed processes may take to go. One that sits in an uninterruptible system call can take for ever."""

HELPERS: Final = "worker"
"""In the attempt's place: the worker's own programs, such as git."""

_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.1


def owner_of_this_process() -> str:
    """What the cookies of this process's programs begin with: no other process ever has the same."""
    pid = os.getpid()
    process = read_process(pid)
    return f"{_process_namespace()}-{pid}-{process.start_ticks if process else 0}"


def mark_helpers() -> None:
    """Let whatever this process starts for itself from now on, git above all, carry its cookie: it must not outlive
    this process either."""
    os.environ[COOKIE_VARIABLE] = f"{owner_of_this_process()}.{HELPERS}"


def owner_of(cookie: str) -> str:
    return cookie.partition(".")[0]


def is_orphaned(cookie: str) -> bool:
    """Whether the worker of this cookie is dead. False for what is no worker's cookie, for one of another container, as
    its numbers mean nothing here, and where /proc hides whoever has the number: it may well be that worker."""
    try:
        namespace, pid, start_ticks = (int(part) for part in owner_of(cookie).split("-"))
    except ValueError:
        return False
    if namespace != _process_namespace():
        return False
    process = read_process(pid)
    return not is_hidden(pid) if process is None else process.start_ticks != start_ticks


def end_tree(
    pid: int | None,
    *,
    cookie: str,
    grace_seconds: float,
    group: str | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> list[int]:
    """End the tree of `pid` and `cookie`: TERM to all of it, up to `grace_seconds` for it to go, then KILL until none is left.

    `pid` leads a session of its own and has not been reaped by its parent: an unreaped number belongs to nobody else.
    Whoever can't promise that passes None, and the cookie decides alone. `group` is the tree's control group.
    `wait(seconds)` is what to do while the processes go; whoever holds their pipes reads them there, for a process may
    have to write before it can end.

    Returns the pids that could not be ended, nearly always none; at once when nothing was left. Raises OSError when
    /proc can't be read, for instance for want of file descriptors.
    """
    tree = _Tree(lambda carried: carried == cookie, () if pid is None else (pid,), () if group is None else (group,))
    if not tree.signal(signal.SIGTERM):
        return []
    if _wait_until_gone(tree, grace_seconds, wait):
        return []
    return _kill_until_gone(tree, wait)


def find_by_cookie(cookie: str) -> list[int]:
    """The living processes that were started with this cookie, ourselves and our ancestors left out."""
    return sorted(process.pid for process in read_processes() if process.cookie == cookie)


def kill_trees(
    is_ours: Callable[[str], bool], *, sessions: Collection[int] = (), groups: Collection[str] = ()
) -> list[int]:
    """KILL every tree whose cookie `is_ours`, those of `sessions` and those in `groups`, until none is left.

    No grace: these processes have lost their owner. `sessions` are numbers that nobody else can have by now: of agents
    that have not been reaped. Returns the pids that could not be ended.
    """
    return _kill_until_gone(_Tree(is_ours, tuple(sessions), tuple(groups)), time.sleep)


def kill_orphans() -> list[int]:
    """KILL what dead workers of this machine have left, whichever fleet they were of. Returns the pids that could not
    be ended."""
    verdicts: dict[str, bool] = {}

    def is_ours(cookie: str) -> bool:
        owner = owner_of(cookie)
        if owner not in verdicts:
            verdicts[owner] = is_orphaned(cookie)
        return verdicts[owner]

    return kill_trees(is_ours)


def sort_into_trees(
    processes: Iterable[Process], cookies: Collection[str], sessions: Mapping[int, str]
) -> dict[str, list[Process]]:
    """The processes of each of these cookies' trees. `sessions` names the cookie of each session that is known.

    One pass for all trees, for whoever looks at many of them again and again.
    """
    children: dict[int, list[Process]] = {}
    trees: dict[str, list[Process]] = {cookie: [] for cookie in cookies}
    found: list[tuple[Process, str]] = []
    for process in processes:
        children.setdefault(process.parent, []).append(process)
        cookie = process.cookie if process.cookie in trees else sessions.get(process.session)
        if cookie in trees:
            found.append((process, cookie))
    met = {process.pid for process, _ in found}
    while found:
        process, cookie = found.pop()
        trees[cookie].append(process)
        for child in children.get(process.pid, ()):
            if child.pid not in met:
                met.add(child.pid)
                found.append((child, cookie))
    return trees


@dataclass(frozen=True)
class _Tree:
    is_ours: Callable[[str], bool]
    """Of a cookie."""
    sessions: tuple[int, ...]
    groups: tuple[str, ...]

    def members(self) -> list[Process]:
        """All of it; looked for twice before we say that there is none, as processes fork and end while we look."""
        return self._read() or self._read()

    def signal(self, number: signal.Signals) -> bool:
        """Send the signal to all of it; whether there was anybody, also if all have moved on to children by now."""
        members = self.members()
        if number == signal.SIGKILL:
            for group in self.groups:
                control_group.kill(group)
        for process in members:
            _signal(process, number)
        return bool(members)

    def _read(self) -> list[Process]:
        processes = read_processes()
        members = {
            process.pid
            for process in processes
            if (process.cookie is not None and self.is_ours(process.cookie))
            or process.pid in self.sessions
            or process.session in self.sessions
        }
        for group in self.groups:
            members.update(control_group.members(group))
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


def _process_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - see process_list.read_file


def _signal(process: Process, number: signal.Signals) -> None:
    """To the process if it is still there. The descriptor pins it, so nobody who inherits the number is ever hit."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = read_process(process.pid)
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
