"""Commits on their way between a repository of ours and one that belongs to the agents' account.

What stands in the configuration of theirs may be a command line, and where git pushes and fetches there are passwords. So
in theirs git runs under their account, in ours under ours, and what goes from one to the other is a pack: data, whose
objects git names by their content once more as they come in.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.accounts import Account
from orchestrator.errors import GitError
from orchestrator.git import FULL_ID, run_git


@dataclass(frozen=True)
class Side:
    """A repository, and whose it is; None: ours."""

    git_dir: Path
    account: Account | None


def hand_over(commit: str, *, beyond: str, source: Side, target: Side) -> None:
    """Give `target` what `commit` has and `beyond`, which it has, has not. Raises `GitError`."""
    if not FULL_ID.fullmatch(commit):  # it may be what a program of theirs has said
        raise GitError(f"{commit!r} is no commit.")
    wanted = f"{commit}\n^{beyond}\n".encode()
    ours = source if source.account is None else target
    with tempfile.TemporaryFile(dir=ours.git_dir) as pack:  # it has no name that anybody could open
        make = ("pack-objects", "--quiet", "--revs", "--delta-base-offset", "--stdout")
        run_git(*make, cwd=source.git_dir, input=wanted, output=pack, account=source.account)
        pack.seek(0)
        run_git("index-pack", "--stdin", cwd=target.git_dir, input=pack, account=target.account)
