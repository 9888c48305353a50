"""Where the embedded stack keeps its things: data, passwords, logs, and sockets with paths short enough to be bound.

    <state_dir>/
        keeper.lock             locked by the keeper for as long as it lives
        leftovers.json          the processes to end if the keeper was killed
        postgres.password  valkey.password
        log/                    one file a process
        postgres/  valkey/      data
        run/                    sockets; a link to a short folder of its own where this path is too long for them

PostgreSQL refuses to run as root. Root's stack gives `postgres/` and `run/postgres/` to another account, which must be
able to pass through `state_dir`: it is made with mode 711 then, else with 700. Nothing above `state_dir` is touched.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import LocalStackError

SOCKET_PATH_BYTES: Final = 103
"""What `sun_path` holds everywhere: 107 bytes on Linux, 103 on macOS."""
LONGEST_SOCKET: Final = "/postgres/.s.PGSQL.5432"
PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9/._-]+")
"""Paths that need no quoting in any URL or configuration file."""
ANYTHING: Final = re.compile(r"\S")
LOG_BYTES: Final = 4 * 2**20
"""A larger log is put aside at the next start; one old log is kept."""


@dataclass(frozen=True)
class Folders:
    """The paths below one state folder. `root` is absolute and has no symbolic link in it."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def leftovers(self) -> Path:
        return self.root / "leftovers.json"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        return self.root / "valkey"

    @property
    def run(self) -> Path | None:
        """The folder of the sockets, or `None` where there is none yet or the linked one is not ours any more."""
        link = self.root / "run"
        try:
            target = link.resolve(strict=True)
            status = target.stat()
        except (OSError, RuntimeError):
            return None
        # Somebody else may have made a folder of that name in /tmp after a clean-up took ours.
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        return target if ours else None

    def make_run(self) -> Path:
        """`run`, made if need be. Only the holder of the lock may call it."""
        found = self.run
        if found is not None:
            return found
        link = self.root / "run"
        if link.is_symlink():
            link.unlink()
        if fits_sockets(link):
            link.mkdir(mode=folder_mode())
            return link
        target = Path(tempfile.mkdtemp(prefix="orchestrator-", dir=_short_parent()))
        target.chmod(folder_mode())
        link.symlink_to(target)
        return target

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def put_aside_large_logs(self) -> None:
        for path in self.logs.glob("*.log"):
            if path.stat().st_size > LOG_BYTES:
                path.replace(path.with_suffix(".log.old"))

    def password(self, service: str) -> str:
        """The service's password, drawn at the first call. Only the holder of the lock may call it."""
        path = self.root / f"{service}.password"
        if not path.exists():
            fresh = path.with_suffix(".new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return path.read_text()


def open_folders(state_dir: Path) -> Folders:
    """The folders below `state_dir`, made if need be. Raises `LocalStackError` where they can't be written."""
    try:
        state_dir.mkdir(mode=folder_mode(), parents=True, exist_ok=True)
        folders = Folders(state_dir.resolve())
        folders.logs.mkdir(mode=0o700, exist_ok=True)
        writable = os.access(folders.root, os.W_OK | os.X_OK) and os.access(folders.logs, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unusable(state_dir, error.strerror or str(error)) from error
    if not writable:
        raise _unusable(state_dir, "it is closed to this account")
    return folders


def folder_mode() -> int:
    return 0o711 if os.geteuid() == 0 else 0o700


def fits_sockets(run: Path) -> bool:
    return len(os.fsencode(run)) + len(LONGEST_SOCKET) <= SOCKET_PATH_BYTES and bool(PLAIN_PATH.fullmatch(str(run)))


def last_line(log: Path, telling: re.Pattern[str] = ANYTHING) -> str:
    """The last line of a log that says anything, or what `telling` finds; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if telling.search(line)), "")


def _short_parent() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Root's runtime folder is closed to the account that PostgreSQL runs under.
    usable = runtime and os.geteuid() != 0 and fits_sockets(Path(runtime) / "orchestrator-xxxxxxxx")
    return runtime if usable and runtime and os.access(runtime, os.W_OK | os.X_OK) else "/tmp"  # noqa: S108 - mkdtemp


def _unusable(state_dir: Path, why: str) -> LocalStackError:
    return LocalStackError(
        f"The state folder {state_dir} can't be used: {why}.",
        context={"state_dir": str(state_dir)},
        recovery="Set ORCHESTRATOR_STATE_DIR to a folder that you may write to.",
    )
