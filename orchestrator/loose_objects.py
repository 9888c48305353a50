"""Loose objects of a cache become one pack.

A clone of a repository on the same machine has its loose objects as they are, a file each, and every checkout would open,
map and close each of them: in 2,000 files that is two thirds of what a checkout costs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from orchestrator.errors import GitError
from orchestrator.git import FULL_ID, run_git


def pack_loose_objects(git_dir: Path) -> None:
    """Put them into one pack, without looking for deltas. An object that can't be read, or git that takes too long, leaves all as it was.

    By their names, not by a walk through the history, so that it costs what they are, however large the repository is.
    """
    names = [name for folder in (git_dir / "objects").iterdir() for name in _names_in(folder)]
    if not names:
        return
    listing = "".join(f"{name}\n" for name in names).encode()
    pack = ("pack-objects", "--quiet", "--window=0", "objects/pack/pack")
    with suppress(GitError):
        run_git(*pack, cwd=git_dir, input=listing)
        run_git("prune-packed", "--quiet", cwd=git_dir)


def _names_in(folder: Path) -> list[str]:
    if len(folder.name) != 2:  # `pack`, `info`
        return []
    names = (folder.name + file.name for file in folder.iterdir())
    return [name for name in names if FULL_ID.fullmatch(name)]  # not what an interrupted write has left
