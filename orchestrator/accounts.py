"""Accounts of this machine besides our own: PostgreSQL's, which refuses root, and the one that root gives to its agents.

What belongs to such an account may be turned into anything by its programs: a file into a link to what only root may
read, a repository's configuration into a command line. So root neither reads nor writes there as root: programs are
started under the account (`Account.of_process`), and our own reading and writing is done in its name (`acting_as`).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigurationError


@dataclass(frozen=True)
class Account:
    """One of /etc/passwd. `groups` are all of its groups, its first one among them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    shell: str = "/bin/sh"

    @property
    def variables(self) -> dict[str, str]:
        """What a login would set."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def agent_account(name: str | None) -> Account | None:
    """The account of the setting `agent_user`; None where agents run under our own: none is named, or root's.

    Raises `ConfigurationError` where it can't be taken.
    """
    if name is None:
        return None
    if os.geteuid() != 0:
        raise ConfigurationError(
            f"Agents can't run under the account {name}: only root may start a program under another one.",
            context={"agent_user": name},
            recovery="Run this process as root, or leave the setting agent_user out.",
        )
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(
            f"There is no account {name} on this machine, which the setting agent_user names.",
            context={"agent_user": name},
            recovery="Make it, for instance with `useradd --system --create-home`, or name another one.",
        ) from None
    if entry.pw_uid == 0:
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def of_process(account: Account | None) -> dict[str, Any]:
    """The words of `subprocess.Popen` that start a program under the account; none for our own."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": account.groups or (account.gid,)}


@contextmanager
def acting_as(account: Account | None) -> Iterator[None]:
    """Inside it this thread may read and write what the account may, and nothing else; what it makes belongs to the
    account. None: nothing changes.

    For looking into folders and making files, in a few lines: no thread is to be started inside, for it would stay so, and
    nothing imported, for the account may not be able to read it. The supplementary groups count for all threads:
    `prepare_for` has dropped them.
    """
    if account is None:
        yield
        return
    system = ctypes.CDLL(None)
    system.setfsuid.restype = ctypes.c_uint
    before = os.getegid(), os.geteuid()
    system.setfsgid(account.gid)  # the group first: after the user has changed it may not be
    system.setfsuid(account.uid)
    try:
        if system.setfsuid(-1) != account.uid:  # it tells no error, only what stood before
            raise PermissionError(f"This process may not act as the account {account.name}.")
        yield
    finally:
        system.setfsuid(before[1])
        system.setfsgid(before[0])


def prepare_for(account: Account, *, folders: tuple[Path, ...], closed_files: tuple[Path, ...]) -> None:
    """Make this process ready to give agents the account: the `folders` can be passed through by it and not be listed, our
    other groups are dropped, and what we make can be read where the account can come at it.

    Raises `ConfigurationError` where a folder can't be reached by the account or isn't ours alone, and where it can read one of
    the `closed_files`.
    """
    os.setgroups([])
    os.umask(0o022)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(
                f"The folder {folder} must belong to root, and nobody else may write to it.",
                context={"folder": str(folder)},
                recovery="Let state_dir and work_dir be folders of root's own.",
            )
        folder.chmod(0o711)
        for lock in folder.glob("*.lock"):  # who may open a file may lock it
            lock.chmod(0o600)
        if closed := closed_folder(folder.resolve(), account):
            raise ConfigurationError(
                f"The folder {closed} is closed to the account {account.name}, whose agents work below it.",
                context={"folder": str(closed), "agent_user": account.name},
                recovery="Set state_dir and work_dir to folders that every account may reach, such as /var/lib/orchestrator.",
            )
    for file in closed_files:
        with acting_as(account):
            is_open = os.access(file, os.R_OK, effective_ids=True)
        if is_open:
            raise ConfigurationError(
                f"The account {account.name}, under which agents run, may read {file}.",
                context={"file": str(file), "agent_user": account.name},
                recovery=f"Close it with `chmod go= {file}`.",
            )


def make_folder(folder: Path, account: Account | None) -> None:
    """A new folder of the account's, closed to all others but root, in one that is ours; None: a folder of our own."""
    folder.mkdir()
    if account is not None:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        folder.chmod(0o700)


def find_program(name: str, *, path: str, account: Account | None = None) -> str | None:
    """The program that the account would start: the first of that name on `path`, or the file of a name with a slash."""
    if account is None:
        return shutil.which(name, path=path)
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in path.split(os.pathsep) if folder]
    with acting_as(account):
        return next((place for place in places if _is_program(place)), None)


def _is_program(place: str) -> bool:
    return os.path.isfile(place) and os.access(place, os.X_OK, effective_ids=True)  # noqa: PTH113 - as `shutil.which`


def closed_folder(folder: Path, account: Account) -> Path | None:
    """The first folder on the way to `folder`, itself included, that `account` may not pass through."""
    for step in [*reversed(folder.parents), folder]:
        status = step.stat()
        if status.st_uid == account.uid:
            bit = 0o100
        elif status.st_gid in {account.gid, *account.groups}:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return step
    return None
