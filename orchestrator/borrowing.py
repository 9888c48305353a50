"""Repositories that borrow the objects of others: a checkout or a merge has its own without a copy.

What they borrow from must outlive them, and never lose an object.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account, acting_as, make_folder
from orchestrator.git import object_format, run_git

AGENTS_REFS: Final = re.compile(rb"[0-9a-f]+ refs/(remotes/origin|tags)/")


def borrow(
    folder: Path, *, objects: Sequence[Path], commit: str, bare: bool = False, account: Account | None = None
) -> Path:
    """Make a repository in the new `folder` that has the objects of others without a copy, and return its git directory.

    `objects` are `objects` folders; they must outlive it. `commit` is any commit in them: its id tells the format.
    `account` is whose it is to be; None: ours.
    """
    git_dir = folder if bare else folder / ".git"
    make_folder(folder, account)
    _initialise(folder, git_dir, object_format(commit), bare=bare, account=account)
    with acting_as(account):
        alternates = b"".join(os.fsencode(path) + b"\n" for path in objects)
        (git_dir / "objects" / "info" / "alternates").write_bytes(alternates)
        for path in objects:
            lend_shallow(path, git_dir)
    return git_dir


def lend_shallow(objects: Path, git_dir: Path) -> None:
    """Tell a borrower where the lender's history ends: else git looks for parents that the lender never had."""
    shallow = objects.parent / "shallow"
    if shallow.exists():
        shutil.copyfile(shallow, git_dir / "shallow")


_WRITTEN_BY_INIT: Final[dict[tuple[str, bool], dict[str, bytes]]] = {}
"""Object format, and whether bare → the files that `git init` writes on this machine."""


def _initialise(folder: Path, git_dir: Path, format_: str, *, bare: bool, account: Account | None) -> None:
    """What `git init` does. It is asked once a process: a program more for each of many attempts at once is felt."""
    if (format_, bare) not in _WRITTEN_BY_INIT:
        # In a folder of ours: what another account may have written is no pattern for our repositories.
        with tempfile.TemporaryDirectory(dir=folder.parent) as pattern:
            bare_option = ["--bare"] if bare else []
            run_git("init", "--quiet", "--template=", f"--object-format={format_}", *bare_option, pattern, cwd=None)
            made = Path(pattern, *([] if bare else [".git"]))
            _WRITTEN_BY_INIT[format_, bare] = {name: (made / name).read_bytes() for name in ("HEAD", "config")}
    with acting_as(account):
        for inside in ("refs/heads", "refs/tags", "objects/pack", "objects/info"):
            (git_dir / inside).mkdir(parents=True)
        for name, content in _WRITTEN_BY_INIT[format_, bare].items():
            (git_dir / name).write_bytes(content)


def refs_for_agents(cache: Path) -> bytes:
    """The remote's branches and the tags, in the form of `packed-refs`: as they were at the last fetch."""
    try:
        lines = (cache / "packed-refs").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:  # a repository without any
        return b""
    return b"".join(line for line in lines if AGENTS_REFS.match(line))
