"""The processes to end if the keeper was killed: written down while they live, ended at the next start.

A process id alone proves nothing, it may be somebody else's by now. Together with the time of the process's start it
does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

logger = logging.getLogger(__name__)

SAME_START_SECONDS: Final = 1.0
"""The start's time is reckoned from the machine's, which a corrected clock moves a little."""
GRACE_SECONDS: Final = 10.0


class Leftovers:
    """The list in `path`. Every change is on the disk before `add` or `remove` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[int, dict[str, Any]] = {}

    def add(self, name: str, pid: int, stop_signal: int) -> None:
        with suppress(psutil.Error):
            started = psutil.Process(pid).create_time()
            self._entries[pid] = {"name": name, "pid": pid, "started": started, "signal": int(stop_signal)}
            self._write()

    def remove(self, pid: int) -> None:
        self._entries.pop(pid, None)
        self._write()

    def _write(self) -> None:
        if not self._entries:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(list(self._entries.values())))
        fresh.replace(self._path)


def end_leftovers(path: Path) -> None:
    """End what an earlier keeper left alive, orderly and then by KILL of the process group, and forget it."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        entries = []
    for entry in entries:
        process = _still_the_same(entry)
        if process is not None:
            logger.warning(
                "The %s of a keeper that was killed still runs as process %d; it is ended.",
                entry["name"],
                process.pid,
                extra={"event": "keeper.leftover", "program": entry["name"], "pid": process.pid},
            )
            end_process(process, entry["signal"])
    path.unlink(missing_ok=True)


def end_process(process: psutil.Process, stop_signal: int) -> None:
    """Ask, wait `GRACE_SECONDS`, then KILL its process group, which it leads."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(stop_signal)
        if _wait_until_gone(process):
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _wait_until_gone(process)


def _still_the_same(entry: dict[str, Any]) -> psutil.Process | None:
    try:
        process = psutil.Process(entry["pid"])
        same = abs(process.create_time() - entry["started"]) < SAME_START_SECONDS
    except psutil.Error:
        return None
    return process if same and not _is_gone(process) else None


def _wait_until_gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + GRACE_SECONDS
    while not _is_gone(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_gone(process: psutil.Process) -> bool:
    """A zombie is gone: in a container nobody may ever fetch its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
