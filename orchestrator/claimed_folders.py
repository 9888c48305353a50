"""Claimed folders: each belongs to the process that works in it, and none outlives that for longer than until the next sweep.

<root>/<name>/         a claimed folder: the workspace of an attempt or of a merge, a spare checkout
<root>/<name>.lock     locked by the process that works in it, for as long as that lives
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from orchestrator.environment import own_programs_environment

log = logging.getLogger(__name__)

CLAIMS: Final = "claims.lock"
REMOVE: Final = ("nice", "-n", "5", "rm", "-rf", "--")


@contextmanager
def claimed_folder(
    root: Path,
    label: str,
    *,
    later: Callable[[Callable[[], None]], None] | None = None,
    of_many_files: bool = False,
    passable: bool = False,
) -> Iterator[Path]:
    """A new folder `<root>/<label>-<random>`, removed at the end whatever happened and whatever is in it.

    `later` is given the removal to do; the folder stays claimed until that is done. None: at once. One `of_many_files`
    is removed by a program of its own, beside this process's other threads. A `passable` one can be passed through by
    other accounts that know its name, and not be listed.
    """
    folder = root / f"{label}-{secrets.token_hex(4)}"
    lock = folder.with_name(f"{folder.name}.lock")
    claim = ExitStack()
    with locked(root / CLAIMS):  # a sweep must not see the lock's file before it is locked
        claim.enter_context(locked(lock))

    def remove() -> None:
        with claim:
            if of_many_files:
                _remove_by_program(folder)
            _give_up(folder, lock)

    try:
        folder.mkdir()
        if passable:
            folder.chmod(0o711)
        yield folder
    finally:
        (later or _at_once)(remove)


def _at_once(remove: Callable[[], None]) -> None:
    remove()


def sweep_folders(root: Path, live: Callable[[str], bool] | None = None) -> list[str]:
    """Remove the claimed folders whose process is dead, and return their names.

    `live` may veto: it is given a folder's name, and True keeps the folder.
    """
    if not root.is_dir():
        return []
    with ExitStack() as claims:
        with locked(root / CLAIMS):
            dead = [lock for lock in sorted(root.glob("*.lock")) if lock.name != CLAIMS and claim_now(lock, claims)]
        swept = [root / lock.stem for lock in dead if live is None or not live(lock.stem)]
        for folder in swept:
            _give_up(folder, folder.with_name(f"{folder.name}.lock"))
    if swept:
        log.info("Removed %d abandoned workspaces", len(swept), extra={"event": "workspace.swept", "root": str(root)})
    return [folder.name for folder in swept]


def abandoned_folders(root: Path) -> list[str]:
    """The claimed folders whose process is dead: what `sweep_folders` would remove."""
    if not root.is_dir():
        return []
    with locked(root / CLAIMS):
        return live_and_dead(root)[1]


def live_and_dead(root: Path) -> tuple[list[str], list[str]]:
    """The names of the claimed folders, by whether their process lives. The caller holds `CLAIMS`."""
    live: list[str] = []
    dead: list[str] = []
    for lock in sorted(root.glob("*.lock")):
        if lock.name == CLAIMS:
            continue
        with ExitStack() as claim:
            (dead if claim_now(lock, claim) else live).append(lock.stem)
    return live, dead


def claim_now(lock: Path, claims: ExitStack) -> bool:
    try:
        claims.enter_context(locked(lock, wait=False))
    except BlockingIOError:
        return False
    return True


def _give_up(folder: Path, lock: Path) -> None:
    """Remove folder and lock. A folder that resists keeps its lock's file, by which the next sweep finds it."""
    try:
        remove_tree(folder)
    except OSError as error:
        log.warning(
            "The workspace %s could not be removed: %s",
            folder,
            error,
            extra={"event": "workspace.not_removed", "folder": str(folder)},
        )
    else:
        lock.unlink(missing_ok=True)


def _remove_by_program(folder: Path) -> None:
    """What it leaves is left to `remove_tree`. In Python the removal of some thousand files holds up every other thread;
    the low priority lets those go first whom somebody waits for."""
    with suppress(OSError):
        subprocess.run(
            [*REMOVE, folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=own_programs_environment(),
            check=False,
            start_new_session=True,
        )


def remove_tree(folder: Path) -> None:
    """Remove a folder, also where agents or tools have taken away the right to write or to list."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError:  # no permission; or a process that was being ended has written once more
        # Root needs no such right, and `chmod` could be led out of the folder by a link of another account's.
        for parent, folders, _ in os.walk(os.fsencode(folder)) if os.geteuid() != 0 else ():
            for path in (os.path.join(parent, name) for name in folders):  # noqa: PTH118 - names of any bytes
                if not os.path.islink(path):  # noqa: PTH114
                    os.chmod(path, stat.S_IRWXU)  # noqa: PTH101
        shutil.rmtree(folder)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the file's lock; it ends with the process. Each call opens the file anew, so threads exclude each other too.

    Raises `BlockingIOError` when `wait` is false and somebody holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", opener=_closed_by_root) as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _closed_by_root(path: str, flags: int) -> int:
    """Who may open a file may lock it: root's agents may have another account."""
    return os.open(path, flags, 0o600 if os.geteuid() == 0 else 0o666)
