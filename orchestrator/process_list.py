"""The processes of this machine, read from /proc: one reading for all threads that ask at the same time.

Imports nothing but the standard library: the guard of a worker runs on a bare interpreter.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final, NamedTuple

COOKIE_VARIABLE: Final = "ORCHESTRATOR_ATTEMPT"

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
"""A second has so many."""
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_SETTLED_TICKS: Final = 2 * CLOCK_TICKS
"""A process so old has come to the program that it was started for: its environment is read once and remembered."""


class Process(NamedTuple):
    """One row of /proc. `start_ticks` tells two processes apart that had the same number one after the other.

    `cpu_ticks` is its own time and that of the children whose end it has waited for. `resident_pages` counts a page
    that several processes share in each of them.
    """

    pid: int
    parent: int
    session: int
    start_ticks: int
    cpu_ticks: int
    threads: int
    resident_pages: int
    cookie: str | None = None


class ProcessList:
    """A thread gets a reading that began after it had asked. Whoever waits behind a reading that is too old for it
    makes the next one, for everybody who has asked by then: two hundred agents may be ended in one moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._processes: list[Process] = []
        self._cookies: dict[tuple[int, int], str | None] = {}

    def read(self) -> list[Process]:
        """Every living process but ourselves and our ancestors: an orchestrator inside an agent must not end itself.

        The newest come first: those that fork and end all the time are met before they have moved on.
        """
        asked = time.monotonic()
        with self._lock:
            if self._began <= asked:
                began = time.monotonic()
                self._processes, self._cookies = _scan(self._cookies)
                self._began = began
            return self._processes


_list: Final = ProcessList()


def read_processes() -> list[Process]:
    """The living processes, ourselves and our ancestors left out. Raises OSError when /proc can't be read."""
    return _list.read()


def read_process(pid: int) -> Process | None:
    """The process, without its cookie, or None if it has ended, also while we read, or if /proc hides it from us.

    A zombie has ended: it waits for its parent only.
    """
    try:
        # The command stands in parentheses and may hold any character, parentheses too.
        fields = read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if fields[0] in b"ZX":
            return None
        return Process(
            pid,
            parent=int(fields[1]),
            session=int(fields[3]),
            start_ticks=int(fields[19]),
            cpu_ticks=int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14]),
            threads=int(fields[17]),
            resident_pages=int(fields[21]),
        )
    except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
        return None


def is_hidden(pid: int) -> bool:
    """Whether there is such a process although /proc does not show it: mounted with `hidepid`, it hides those of other
    accounts, and from all but root those that are closed to others (`closed_process`)."""
    if os.access(f"/proc/{pid}/stat", os.R_OK):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_file(path: str) -> bytes:
    """The whole file. Without pathlib, which would treble the cost of a scan."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


_Cookies = dict[tuple[int, int], str | None]


def _scan(known: _Cookies) -> tuple[list[Process], _Cookies]:
    """All processes, and the cookies of those that are old enough to be remembered."""
    spared = _ancestry()
    settled_before = time.clock_gettime(time.CLOCK_BOOTTIME) * CLOCK_TICKS - _SETTLED_TICKS
    pids = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)  # noqa: PTH208 - see read_file
    processes: list[Process] = []
    cookies: _Cookies = {}
    for pid in pids:
        process = None if pid in spared else read_process(pid)
        if process is None:
            continue
        key = (pid, process.start_ticks)
        cookie = known[key] if key in known else _read_cookie(pid)
        if process.start_ticks < settled_before:
            cookies[key] = cookie
        processes.append(process if cookie is None else process._replace(cookie=cookie))
    return processes, cookies


def _ancestry() -> set[int]:
    pid, line = os.getpid(), set()
    while pid and pid not in line:
        line.add(pid)
        process = read_process(pid)
        pid = process.parent if process else 0
    return line


def _read_cookie(pid: int) -> str | None:
    try:
        environment = b"\0" + read_file(f"/proc/{pid}/environ")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # has just ended, or is another account's
        return None
    _, found, rest = environment.partition(b"\0" + COOKIE_VARIABLE.encode() + b"=")
    return rest.partition(b"\0")[0].decode(errors="replace") if found else None
