"""How a checkout comes about: made afresh, or taken from a spare one that no agent has touched.

A spare lies at some commit of the same repository, and is moved to the attempt's base: git writes only what differs. What
comes out is what a fresh one would be, files, index and repository alike.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account, acting_as
from orchestrator.borrowing import borrow, lend_shallow, refs_for_agents
from orchestrator.git import IDENTITY, run_git

NO_PUSH: Final = "/pushing-is-off-the-work-is-pushed-when-the-attempt-ends"
"""The agent's push URL: a path that does not exist, so that `git push` fails and says why."""


@dataclass(frozen=True)
class Source:
    """The job's repository, this machine's cache of it, and whose the checkouts are to be; None: ours."""

    repo: str
    cache: Path
    account: Account | None = None

    @property
    def objects(self) -> Path:
        return self.cache / "objects"


@dataclass(frozen=True)
class Spare:
    """A checkout of nobody's. `second` is that in which its last file was written; it may be moved when that is over."""

    checkout: Path
    base_commit: str
    second: int


def check_out(checkout: Path, source: Source, base_commit: str, branch: str) -> None:
    """Make a repository in `checkout` that borrows the cache's objects, with the base's files on a new branch."""
    git_dir = _empty_repository(checkout, source, base_commit)
    _know_branches(git_dir, source)
    run_git("checkout", "--quiet", "-b", branch, base_commit, cwd=checkout, account=source.account)


def number_of_files(checkout: Path, account: Account | None) -> int:
    """As the head of its index has it (gitformat-index)."""
    with acting_as(account), (checkout / ".git" / "index").open("rb") as index:
        return int.from_bytes(index.read(12)[8:])


def make_spare(
    checkout: Path, source: Source, base_commit: str, on_start: Callable[[subprocess.Popen[bytes]], None]
) -> Spare:
    """Make one with what the machine has left over. `on_start` is given git's process, which may be killed: `GitError`."""
    git_dir = _empty_repository(checkout, source, base_commit)
    at_ease = ("checkout", "--quiet", "--detach", base_commit)
    run_git(*at_ease, cwd=checkout, nice=19, on_start=on_start, account=source.account)
    with acting_as(source.account):
        shutil.rmtree(git_dir / "logs")
        index = git_dir / "index"
        second = int(index.stat().st_mtime)
        # Git reads each file again that was written in the second of its index, for it may have changed since. Nobody
        # changes these in that second: nobody is given them before it is over.
        os.utime(index, (second + 1, second + 1))
    return Spare(checkout, base_commit, second)


def move_spare(spare: Spare, checkout: Path, source: Source, base_commit: str, branch: str) -> bool:
    """Make the spare the attempt's checkout, with the base's files on a new branch. False: it can't serve this base.

    Raises `GitError` or `OSError` where it turned out to be broken.
    """
    if not _attributes.agree(source.cache, spare.base_commit, base_commit):
        return False
    spare.checkout.rename(checkout)
    git_dir = checkout / ".git"
    with acting_as(source.account):
        lend_shallow(source.objects, git_dir)
    _know_branches(git_dir, source)
    run_git("checkout", "--quiet", "--force", "-b", branch, base_commit, cwd=checkout, account=source.account)
    return True


class _Attributes:
    """Whether two commits have the same `.gitattributes`. By them git writes files in other ways than they are stored, and
    it would not write a file again whose content is the same in both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[tuple[str, str], bool] | None = None
        """One answer is enough: those who begin together move from one commit to one other."""

    def agree(self, cache: Path, one: str, other: str) -> bool:
        if one == other:
            return True
        with self._lock:
            if self._last is None or self._last[0] != (one, other):
                differ = ("diff-tree", "-r", "--name-only", one, other, "--", ":(glob)**/.gitattributes")
                found = run_git(*differ, cwd=cache, env={"GIT_LITERAL_PATHSPECS": "0"}).stdout
                self._last = ((one, other), not found)
            return self._last[1]


_attributes = _Attributes()


def _empty_repository(checkout: Path, source: Source, commit: str) -> Path:
    git_dir = borrow(checkout, objects=[source.objects], commit=commit, account=source.account)
    with acting_as(source.account):
        _configure(git_dir, source.repo)
    return git_dir


def _know_branches(git_dir: Path, source: Source) -> None:
    refs = refs_for_agents(source.cache)
    with acting_as(source.account):
        (git_dir / "packed-refs").write_bytes(refs)


def _configure(git_dir: Path, repo: str) -> None:
    """The agent sees where the repository lives, without the password, and can't push there by its name."""
    url = re.sub(r"^(https?://)[^/@]*@", r"\1", repo).replace("\\", "\\\\").replace('"', '\\"')
    with (git_dir / "config").open("a", encoding="utf-8", errors="surrogateescape") as config:
        config.write(
            f"[user]\n\tname = {IDENTITY['GIT_AUTHOR_NAME']}\n\temail = {IDENTITY['GIT_AUTHOR_EMAIL']}\n"
            f"[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
            f'[remote "origin"]\n\turl = "{url}"\n\tpushurl = {NO_PUSH}\n'
            f"\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        )
