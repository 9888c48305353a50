"""Accounts of this machine besides our own, such as PostgreSQL's, which refuses root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int


def closed_folder(folder: Path, account: Account) -> Path | None:
    """The first folder on the way to `folder`, itself included, that `account` may not pass through."""
    for step in [*reversed(folder.parents), folder]:
        status = step.stat()
        if status.st_uid == account.uid:
            bit = 0o100
        elif status.st_gid == account.gid:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return step
    return None
