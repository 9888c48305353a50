"""Where workspaces come from and go to: made before an attempt, removed after it, swept where their process is dead."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.accounts import Account, acting_as, make_folder
from orchestrator.borrowing import borrow
from orchestrator.claimed_folders import claimed_folder, sweep_folders
from orchestrator.repository_cache import RepositoryCache
from orchestrator.state.checkpoints import SavedWork
from workers.checkouts import Source
from workers.earlier_work import take_up
from workers.spare_checkouts import SpareCheckouts
from workers.workspace import Workspace


class Workspaces:
    """Makes and removes the workspaces of this machine under `root`. Threads and processes may share it.

    `later` does the removals; None: at once. `spares` are checkouts made ahead; None: there are none. `account` is that of
    the agents; None: ours.
    """

    def __init__(
        self,
        root: Path,
        cache: RepositoryCache,
        *,
        later: Callable[[Callable[[], None]], None] | None = None,
        spares: SpareCheckouts | None = None,
        account: Account | None = None,
    ) -> None:
        self.root = root
        self.cache = cache
        self._later = later
        self._spares = spares or SpareCheckouts(root, most=0)
        self._account = account

    @contextmanager
    def prepare(
        self,
        *,
        job_id: str,
        subtask_id: int,
        attempt_number: int,
        repo: str | None,
        base_commit: str | None,
        earlier: SavedWork | None = None,
    ) -> Iterator[Workspace]:
        """A workspace for one attempt, removed at the end; with no `repo` its checkout is an empty folder.

        `earlier` is work of an attempt from the same base, to go on with; `has_earlier_work` says whether it is there.
        Raises `GitError` or `RepositoryError` when the repository can't be read or does not have the base commit.
        """
        label, account = f"{job_id}-{subtask_id}-{attempt_number}", self._account
        with claimed_folder(
            self.root, label, later=self._later, of_many_files=repo is not None, passable=account is not None
        ) as folder:
            make_folder(folder / "private", account)
            (folder / "private").chmod(0o700)
            checkout = folder / "checkout"
            if repo is None or base_commit is None:
                make_folder(checkout, account)
                yield Workspace(folder.resolve(), account=account)
                return
            cache = self.cache.path_with(repo, [base_commit])
            source, branch = Source(repo, cache, account), f"subtask-{subtask_id}"
            with self._spares.checked_out(checkout, source, base_commit, branch=branch, job_id=job_id):
                through = _make_outgoing(folder, cache, base_commit) if account else checkout
                taken_up = earlier is not None and take_up(earlier, source, base_commit, checkout, through)
                _make_record(folder, cache, base_commit, account)
                yield Workspace(folder.resolve(), repo, base_commit, cache, account, has_earlier_work=taken_up)

    def sweep(self, live: Callable[[str], bool] | None = None) -> list[str]:
        """Remove what dead processes left here, and return the folders' names. `live(name)` may keep one."""
        return sweep_folders(self.root, live)


def _make_outgoing(folder: Path, cache: Path, base_commit: str) -> Path:
    outgoing = borrow(folder / "outgoing.git", objects=[cache / "objects"], commit=base_commit, bare=True)
    outgoing.chmod(0o700)
    return outgoing


def _make_record(folder: Path, cache: Path, base_commit: str, account: Account | None) -> None:
    git_dir = folder / "checkout" / ".git"
    lenders = [cache / "objects", git_dir / "objects"]
    record = borrow(folder / "record.git", objects=lenders, commit=base_commit, bare=True, account=account)
    # The time stamp goes along: by it git knows which files may have changed in the tick in which they were written.
    with acting_as(account):
        shutil.copy2(git_dir / "index", record / "index")
