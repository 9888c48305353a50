"""Clean checkouts that are made while agents are at work: the next attempt takes one instead of waiting for its own.

A large repository's checkout takes seconds, and those of a group that begins all at once wait for each other. While the
agents work the machine often has time to spare, so one thread makes as many as agents have been at work on the
repository at once, one after the other, at the lowest priority. It goes on when they have ended: the next group, or the
next job, begins as many again.

A spare is in a claimed folder of its own, which no agent is told of; it is removed when its repository has not been used
for some minutes, when the worker ends, and, where that was killed, by the sweep of the next start.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.claimed_folders import claimed_folder
from orchestrator.errors import OrchestratorException
from workers.checkouts import Source, Spare, check_out, make_spare, move_spare, number_of_files
from workers.folder_size import FolderSize

log = logging.getLogger(__name__)

WORTH_FILES: Final = 1000
WORTH_SECONDS: Final = 1.0
"""A checkout that has fewer files, and was once made in less, needs no spare: it would cost as much as it saves."""
UNUSED_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 30.0
FREE_SHARE: Final = 0.1
"""Of the disk; with less left nothing is made ahead."""


@dataclass(frozen=True)
class _Kept:
    source: Source
    spare: Spare
    claim: ExitStack
    """Removes its folder."""
    size_bytes: int


@dataclass(frozen=True)
class _Wish:
    """What was checked out last: the next attempt most likely wants the same."""

    source: Source
    base_commit: str
    job_id: str


class SpareCheckouts:
    """Those of one worker, `most` at once; all together take no more than `max_bytes` (None: as the disk allows)."""

    def __init__(self, root: Path, *, most: int, max_bytes: int | None = None) -> None:
        self._root = root
        self._most = most
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._kept: list[_Kept] = []
        """Oldest first."""
        self._at_work: Counter[Source] = Counter()
        self._at_once: Counter[Source] = Counter()
        """The most that have been at work since it came into use."""
        self._used_at: dict[Source, float] = {}
        self._fastest: dict[Source, float] = {}
        """How long its fastest checkout took: that of a busy moment says little of a repository."""
        self._files: dict[Source, int] = {}
        self._wish: _Wish | None = None
        self._git: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="spare-checkouts", daemon=True)
        if most:
            self._thread.start()

    @contextmanager
    def checked_out(
        self, checkout: Path, source: Source, base_commit: str, *, branch: str, job_id: str
    ) -> Iterator[None]:
        """Make `checkout`, from a spare where there is one; inside the block an agent is at work on the repository."""
        with self._changed:
            if not self._is_in_use(source):
                del self._at_once[source]
            self._at_work[source] += 1
            self._at_once[source] = max(self._at_once[source], self._at_work[source])
        try:
            if not self._take(checkout, source, base_commit, branch):
                began = time.monotonic()
                check_out(checkout, source, base_commit, branch)
                took = time.monotonic() - began
                with self._changed:
                    self._fastest[source] = min(took, self._fastest.get(source, took))
                    self._files[source] = number_of_files(checkout, source.account)
            with self._changed:
                if self._is_worth_it(source):
                    self._wish = _Wish(source, base_commit, job_id)
                    self._changed.notify()
            yield
        finally:
            with self._changed:
                self._used_at[source] = time.monotonic()
                self._at_work[source] -= 1

    def close(self) -> None:
        """Remove all, also the one that is being made."""
        with self._changed:
            self._closed = True
            if self._git is not None:
                self._git.kill()
            self._changed.notify()
        if self._most:
            self._thread.join()

    def _take(self, checkout: Path, source: Source, base_commit: str, branch: str) -> bool:
        now = int(checkout.parent.stat().st_mtime)  # by the file system's clock: it was made for this attempt
        with self._changed:
            kept = next((kept for kept in self._kept if kept.source == source and kept.spare.second < now), None)
            if kept is None:
                return False
            self._kept.remove(kept)
        with kept.claim:
            try:
                return move_spare(kept.spare, checkout, source, base_commit, branch)
            except (OrchestratorException, OSError) as error:
                # Whatever has come over it, or over the cache from which it borrows.
                log.warning("A spare checkout can't be used: %s", error, extra={"event": "spare.broken"})
                shutil.rmtree(checkout, ignore_errors=True)
                return False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._is_short() or self._unused(), LOOK_SECONDS)
                if self._closed:
                    break
                wish = self._wish if self._is_short() else None
                out = self._unused() or self._in_the_way(wish)
                self._kept = [kept for kept in self._kept if kept not in out]
            for kept in out:
                kept.claim.close()
            if wish is not None:
                self._make(wish)
        for kept in self._kept:
            kept.claim.close()

    def _is_worth_it(self, source: Source) -> bool:
        return self._files.get(source, 0) >= WORTH_FILES or self._fastest.get(source, 0.0) >= WORTH_SECONDS

    def _is_short(self) -> bool:
        if self._wish is None or not self._is_worth_it(self._wish.source):
            return False
        source = self._wish.source
        ready = sum(kept.source == source for kept in self._kept)
        return self._is_in_use(source) and ready < min(self._at_once[source], self._most)

    def _unused(self) -> list[_Kept]:
        return [kept for kept in self._kept if not self._is_in_use(kept.source)]

    def _is_in_use(self, source: Source) -> bool:
        used_at = self._used_at.get(source, -UNUSED_SECONDS)
        return bool(self._at_work[source]) or used_at >= time.monotonic() - UNUSED_SECONDS

    def _in_the_way(self, wish: _Wish | None) -> list[_Kept]:
        """The oldest of another repository, where there is no place left."""
        if wish is None or len(self._kept) < self._most:
            return []
        return [kept for kept in self._kept if kept.source != wish.source][:1]

    def _make(self, wish: _Wish) -> None:
        try:
            with ExitStack() as claim:
                name = f"{wish.job_id}-spare"  # after the job, by which `prune` knows which caches are in use
                folder = claim.enter_context(claimed_folder(self._root, name, passable=wish.source.account is not None))
                is_kept = self._has_room(0) and self._keep(wish, folder, claim)
        except (OrchestratorException, OSError) as error:
            is_kept = False
            if not self._closed:
                log.warning("No spare checkout could be made: %s", error, extra={"event": "spare.not_made"})
        if not is_kept:
            with self._changed:
                if self._wish == wish:  # nothing more of it until an attempt wants it again
                    self._wish = None

    def _keep(self, wish: _Wish, folder: Path, claim: ExitStack) -> bool:
        spare = make_spare(folder / "checkout", wish.source, wish.base_commit, self._note_git)
        size_bytes = 0 if self._max_bytes is None else FolderSize(folder).measure(float("inf")) or 0
        with self._changed:
            self._git = None
            if self._closed or not self._has_room(size_bytes):
                return False
            self._kept.append(_Kept(wish.source, spare, claim.pop_all(), size_bytes))
        return True

    def _note_git(self, process: subprocess.Popen[bytes]) -> None:
        with self._changed:
            self._git = process
            if self._closed:
                process.kill()

    def _has_room(self, size_bytes: int) -> bool:
        used = size_bytes + sum(kept.size_bytes for kept in self._kept)
        disk = shutil.disk_usage(self._root)
        return (self._max_bytes is None or used <= self._max_bytes) and disk.free >= FREE_SHARE * disk.total
