"""Control groups (cgroup v2), where somebody has delegated one to the worker: each attempt gets a group of its own.

    <base>/                     delegated: by systemd (`Delegate=yes`), or named by the setting `cgroup`
        workers/                the processes that were in <base> itself: a group with limits may hold none
        <cookie>/               one attempt: memory.max, pids.max, and cgroup.kill, which nobody escapes

A base without the controllers `memory` and `pids` is of use as well: its groups still end all their processes, and
tell their processor time. Imports nothing but the standard library: the guard of a worker runs on a bare interpreter.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Final

logger = logging.getLogger(__name__)

WORKERS: Final = "workers"
_CONTROLLERS: Final = ("memory", "pids")
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
"""What systemd marks a group with that it has given away; the first since version 251, the second for root only."""
_REMOVAL_SECONDS: Final = 2.0
"""How long the kernel may take to forget the last process of a group."""


def find_base(named: str | None) -> str | None:
    """The group in which attempts may have groups of their own, made ready; None where there is none.

    `named` is the user's choice, and the worker's own group counts only if it was delegated: root may write everywhere,
    and is still not to rearrange other people's groups. Raises OSError when `named` can't be used.
    """
    if named is not None:
        _make_ready(named)
        return named
    own = _own_group()
    if own is None or not _is_delegated(own):
        return None
    try:
        _make_ready(own)
    except OSError as error:
        logger.warning(
            "The control group of this worker was delegated, but can't be used: %s.",
            error,
            extra={"event": "cgroup.unusable", "group": own},
        )
        return None
    return own


def make(base: str, cookie: str, *, memory_bytes: int | None, processes: int | None) -> str:
    """A group for the attempt of `cookie` with these limits, as far as the base has controllers. Returns its path."""
    group = _join(base, cookie)
    os.mkdir(group)  # noqa: PTH102
    limits = {
        "memory.max": memory_bytes,
        "memory.oom.group": None if memory_bytes is None else 1,  # the attempt ends as a whole, or not at all
        "pids.max": processes,
    }
    for name, value in limits.items():
        if value is not None:
            with suppress(FileNotFoundError, PermissionError):  # no controller: files can't be made here
                _write(_join(group, name), str(value))
    return group


def entering(group: str, argv: list[str], stdin: str) -> tuple[list[str], IO[bytes]]:
    """The command that moves itself into the group and becomes `argv`, whose stdin is to be the file `stdin`: nothing that
    it starts can be left outside. And what has to be its own stdin: the door of the group, which we have opened, for it may
    run under an account that may not."""
    door = open(_join(group, "cgroup.procs"), "wb", buffering=0)  # noqa: PTH123, SIM115
    return ["/bin/sh", "-c", 'echo 0 >&0 && exec "$@" <"$0"', stdin, *argv], door


def members(group: str) -> list[int]:
    """The processes in it and in the groups below it; none when it is gone."""
    pids: list[int] = []
    for folder in _folders(group):
        with suppress(OSError):
            pids += [int(line) for line in _read(_join(folder, "cgroup.procs")).split()]
    return pids


def kill(group: str) -> None:
    """KILL all in it at one blow. Where the kernel can't (before 5.14) its members have to be met one by one."""
    with suppress(OSError):
        _write(_join(group, "cgroup.kill"), "1")


def remove(group: str) -> bool:
    """Remove it and the groups below it, once nobody is in them any more; whether that worked."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while True:
        for folder in reversed(list(_folders(group))):
            with suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106
        if not os.path.isdir(group):  # noqa: PTH112
            return True
        if time.monotonic() > deadline:
            logger.warning(
                "The control group %s could not be removed.", group, extra={"event": "cgroup.stays", "group": group}
            )
            return False
        time.sleep(0.02)


def groups_in(base: str) -> Iterator[tuple[str, str]]:
    """The attempts' groups: cookie and path of each."""
    with suppress(FileNotFoundError):
        for name in os.listdir(base):  # noqa: PTH208
            path = _join(base, name)
            if name != WORKERS and os.path.isdir(path):  # noqa: PTH112
                yield name, path


def read_figure(group: str, name: str) -> int | None:
    """A file that holds one number; None where the file is missing, for want of a controller or of a newer kernel."""
    try:
        return int(_read(_join(group, name)))
    except (OSError, ValueError):
        return None


def read_counters(group: str, name: str) -> Mapping[str, int]:
    """A file of lines `key number`; empty where the file is missing."""
    try:
        words = _read(_join(group, name)).split()
        return {key: int(number) for key, number in zip(words[::2], words[1::2], strict=True)}
    except (OSError, ValueError):
        return {}


def _own_group() -> str | None:
    """The folder of the group that this process is in, in the hierarchy of version 2; None on a machine without it."""
    with suppress(OSError):
        own = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), None)
        mounts = (line.split() for line in _read("/proc/self/mountinfo").splitlines())
        mount = next((fields[4] for fields in mounts if "cgroup2" in fields[fields.index("-") :][1:2]), None)
        if own is not None and mount is not None:
            return os.path.normpath(mount + own)
    return None


def _is_delegated(group: str) -> bool:
    for name in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _make_ready(base: str) -> None:
    """Switch on the controllers that there are; before that the processes in `base` itself have to move down."""
    missing = [
        name
        for name in _CONTROLLERS
        if name in _read(_join(base, "cgroup.controllers")).split()
        and name not in _read(_join(base, "cgroup.subtree_control")).split()
    ]
    if missing:
        leaf = _join(base, WORKERS)
        with suppress(FileExistsError):
            os.mkdir(leaf)  # noqa: PTH102
        for pid in _read(_join(base, "cgroup.procs")).split():
            with suppress(ProcessLookupError):
                _write(_join(leaf, "cgroup.procs"), pid)
        _write(_join(base, "cgroup.subtree_control"), " ".join(f"+{name}" for name in missing))
    if not os.access(base, os.W_OK):
        raise PermissionError(f"groups can't be made in {base}")


def _folders(group: str) -> Iterator[str]:
    for folder, _, _ in os.walk(group):
        yield folder


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}"


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(text)
