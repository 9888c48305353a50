"""Which processes belong to a folder: by the list of processes, not by what anybody says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil


def processes_with(word: str) -> list[str]:
    """The lines of `ps` whose command has `word` in it."""
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if word in line and "ps -eo" not in line]


def processes_of(folder: Path) -> list[psutil.Process]:
    """The living processes that name `folder` in their command or work inside it; zombies do not live."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(folder) in word for word in process.cmdline())
            if (named or _works_in(process, folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except psutil.AccessDenied:  # another account's, or one of ours that is closed to others
        return False


def process_named(folder: Path, word: str) -> psutil.Process | None:
    """The process of `folder` whose command has `word` in it, the parent where a child has it too."""
    matching = [process for process in processes_of(folder) if word in " ".join(_command(process))]
    return min(matching, key=lambda process: process.create_time(), default=None)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
