"""Looking at files of a checkout that an agent may have turned into anything."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

LARGEST_READ_BYTES: Final = 1024 * 1024
"""Of a file that git keeps for itself in the agent's repository."""


def read_plain_file(path: Path) -> bytes:
    """What stands in a file of the agent's repository; nothing where it is missing, large, or a trap: a pipe, a link to
    a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return b""
    try:
        found = os.fstat(descriptor)
        plain = stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST_READ_BYTES
        return os.read(descriptor, LARGEST_READ_BYTES) if plain else b""
    finally:
        os.close(descriptor)


def looks_the_same(one: Path, other: Path) -> bool:
    """Whether nobody has written either file since one was copied from the other with its time stamp."""
    try:
        first, second = one.stat(), other.stat()
    except OSError:
        return False
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)


def is_linked_worktree(folder: Path) -> bool:
    return re.match(rb"gitdir: .*/worktrees/[^/]+\s*$", read_plain_file(folder / ".git")) is not None


def is_own_file(root: bytes, path: bytes) -> bool:
    """Whether a path names a file or a link in the checkout itself, not one behind a link to a folder."""
    full = os.path.join(root, path)  # noqa: PTH118 - names of any bytes
    parent = os.path.dirname(full)  # noqa: PTH120
    return os.path.realpath(parent) == parent and (os.path.isfile(full) or os.path.islink(full))  # noqa: PTH113, PTH114
