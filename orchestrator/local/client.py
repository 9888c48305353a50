"""What a command needs of the embedded stack, for as long as it needs it.

    with local_stack(settings, need=Need.SERVICES) as stack:
        engine = create_engine(stack.settings.database_url)

What the settings name is used and not started. The rest belongs to the keeper of the state folder
(`orchestrator.local.keeper`): the first command starts it, all share it, and it ends with the last one.
"""

from __future__ import annotations

import enum
import fcntl
import importlib.metadata
import json
import os
import select
import shlex
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.errors import LocalStackError
from orchestrator.local.folders import Folders, last_line, open_folders
from orchestrator.local.protocol import SILENCE_SECONDS, SOCKET_NAME, Request
from orchestrator.settings import Settings

LOOK_SECONDS: Final = 0.02
# Without -P a folder `workers` or `orchestrator` of the user's would be taken for ours.
PYTHON: Final = (sys.executable, "-P", "-m")
FORK_SERVER: Final = (*PYTHON, "workers.node", "fork-server")
"""What dispatcher and workers are forked from; `orchestrator.local.fork_server` says how."""
KEEPER_STOP_SECONDS: Final = 120.0
"""Longer than the stack's slowest stop."""
WORKER_STOP_SECONDS: Final = 15.0
"""What dispatcher and worker get to stop, on top of their own drain and kill grace."""


class Need(enum.Enum):
    """What a command needs. Each includes those before it."""

    DATABASE = enum.auto()
    SERVICES = enum.auto()
    """Database and broker."""
    WORKERS = enum.auto()
    """The services, one dispatcher, and as many slots of workers as it says."""


@dataclass(frozen=True)
class Stack:
    """The services as they are now: `settings` has the URLs of all that was asked for."""

    settings: Settings
    _connection: _Connection | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raise `LocalStackError` when a process of the stack can't be kept running, or the keeper was ended.

        It never waits. A command that watches a job calls it now and then.
        """
        if self._connection is not None:
            self._connection.check()


@contextmanager
def local_stack(
    settings: Settings,
    *,
    need: Need,
    slots: int | None = None,
    on_progress: Callable[[str], None] | None = None,
    fork_server: Sequence[str] = FORK_SERVER,
) -> Iterator[Stack]:
    """The services of `need`; at its end, if no other command uses them, they have stopped. Who is interrupted does not
    wait for that: the keeper sees to it.

    `slots` (default: the settings') counts for `Need.WORKERS`: there will be at least so many. `on_progress` hears, in
    a few words, what is being waited for. Raises `LocalStackError`.
    """
    request = Request(
        version=importlib.metadata.version("orchestrator"),
        needs_broker=need is not Need.DATABASE,
        slots=(slots or settings.slots) if need is Need.WORKERS else 0,
        database_url=settings.database_url,
        broker_url=settings.broker_url,
    )
    nothing_to_start = request.database_url and (request.broker_url or not request.needs_broker) and not request.slots
    if nothing_to_start:
        yield Stack(settings)
        return
    connection, urls = _Starter(settings, request, on_progress or (lambda _: None), fork_server).connect()
    try:
        yield Stack(settings.model_copy(update=urls), connection)
    except KeyboardInterrupt:
        connection.close()
        raise
    except BaseException:
        connection.leave()
        raise
    connection.leave()


@contextmanager
def running_database(settings: Settings) -> Iterator[str | None]:
    """The URL of the database that is configured, or of the local stack if it runs now; it starts none.

    Like every use of the stack it keeps it up meanwhile.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    connection = _try_connect(Folders(settings.state_dir.resolve()))
    if connection is None:
        yield None
        return
    request = Request(importlib.metadata.version("orchestrator"), False, 0, None, settings.broker_url)
    try:
        yield connection.ask(request, lambda _: None)["database_url"]
    finally:
        connection.leave()


class _KeeperIsEnding(Exception):  # noqa: N818 - a turn of events, not an error
    """The keeper closed the connection before it answered."""


class _Connection:
    """The claim on a keeper, and whatever it says."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self.keeper: subprocess.Popen[bytes] | None = None
        """Set where this process started the keeper, and so must fetch its exit code."""

    def ask(self, request: Request, on_progress: Callable[[str], None]) -> dict[str, str]:
        """Returns the URLs. Raises `LocalStackError`, or `_KeeperIsEnding`."""
        self._socket.settimeout(SILENCE_SECONDS)
        try:
            self._socket.sendall(request.line())
            doing = ""
            while True:
                message = self._next()
                if "ready" in message:
                    urls: dict[str, str] = message["ready"]
                    return urls
                if "error" in message:
                    raise LocalStackError(**message["error"])
                if message["progress"] != doing:
                    doing = message["progress"]
                    on_progress(doing)
        except TimeoutError as error:
            pid = self._peer()
            self._socket.close()  # there is nobody whose answer `leave` could wait for
            raise LocalStackError(
                f"The keeper of the local stack, process {pid}, does not answer.",
                context={"pid": pid},
                recovery=f"End it with `kill -9 {pid}` and try again.",
            ) from error
        except OSError as error:
            raise _KeeperIsEnding from error

    def check(self) -> None:
        while b"\n" in self._buffer or select.select([self._socket], [], [], 0)[0]:
            try:
                message = self._next()
            except (_KeeperIsEnding, OSError) as error:
                raise LocalStackError(
                    "The keeper of the local stack was ended.", recovery="See log/keeper.log in the state folder."
                ) from error
            if "error" in message:
                raise LocalStackError(**message["error"])

    def close(self) -> None:
        """Give up the claim, and wait for nothing."""
        self._socket.close()

    def leave(self) -> None:
        """Give up the claim and wait until what nobody else needs has stopped."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(KEEPER_STOP_SECONDS)
            while self._socket.recv(4096):
                pass
        self._socket.close()
        if self.keeper is not None:
            with suppress(subprocess.TimeoutExpired):
                # When others use the stack the keeper lives on without us.
                self.keeper.wait(timeout=1)

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            received = self._socket.recv(65536)
            if not received:
                raise _KeeperIsEnding
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _peer(self) -> int:
        pid: int = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


@dataclass
class _Starter:
    """Finds the keeper or starts it, whatever other commands, and an earlier keeper that is just ending, do."""

    settings: Settings
    request: Request
    on_progress: Callable[[str], None]
    fork_server: Sequence[str]

    def connect(self) -> tuple[_Connection, dict[str, str]]:
        folders = open_folders(self.settings.state_dir)
        deadline = time.monotonic() + KEEPER_STOP_SECONDS
        keeper: subprocess.Popen[bytes] | None = None
        waits_for_the_lock = False
        while time.monotonic() < deadline:
            connection = _try_connect(folders)
            if connection is not None:
                connection.keeper = keeper
                try:
                    return connection, connection.ask(self.request, self.on_progress)
                except _KeeperIsEnding:
                    connection.leave()
                except BaseException:
                    connection.leave()
                    raise
            if keeper is not None and keeper.poll() is not None:
                if keeper.returncode != 0:
                    raise _did_not_start(folders)
                keeper = None
            if keeper is None:
                keeper = self._start_keeper_if_none(folders)
                if keeper is None and not waits_for_the_lock:
                    waits_for_the_lock = True
                    self.on_progress("waiting for the keeper of the local stack")
            time.sleep(LOOK_SECONDS)
        raise LocalStackError(
            f"The keeper of {folders.root}, process {_text(folders.lock)}, neither answers nor ends.",
            recovery=f"See {folders.log('keeper')}, end that process and try again.",
        )

    def _start_keeper_if_none(self, folders: Folders) -> subprocess.Popen[bytes] | None:
        """Start the keeper under the lock; `None` when another process has the lock: a keeper, or who starts one."""
        lock = os.open(folders.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            folders.put_aside_large_logs()
            with folders.log("keeper").open("ab") as log:
                return subprocess.Popen(
                    self._keeper_command(folders, lock),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | _environment_of(self.settings),
                    start_new_session=True,
                    pass_fds=[lock],
                )
        except OSError as error:
            raise LocalStackError(
                f"The keeper of {folders.root} could not be started: {error.strerror}.",
                recovery="See the state folder's permissions and the disk's free space.",
            ) from error
        finally:
            os.close(lock)  # the keeper's copy of the descriptor holds the lock on

    def _keeper_command(self, folders: Folders, lock: int) -> list[str]:
        stop_seconds = WORKER_STOP_SECONDS + self.settings.drain_seconds + self.settings.kill_grace_seconds
        options = {
            "--state-dir": str(folders.root),
            "--lock-fd": str(lock),
            "--version": self.request.version,
            "--fork-server": shlex.join(self.fork_server),
            "--worker-stop-seconds": str(stop_seconds),
        }
        words = [word for option in options.items() for word in option]
        return [*PYTHON, "orchestrator.local.keeper", *words]


def _try_connect(folders: Folders) -> _Connection | None:
    run = folders.run
    if run is None:
        return None
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(SILENCE_SECONDS)
        connected.connect(str(run / SOCKET_NAME))
    except OSError:
        connected.close()
        return None
    return _Connection(connected)


def _environment_of(settings: Settings) -> dict[str, str]:
    """What was set for this command, by variable, file or option, for the processes that the keeper starts."""
    given = settings.model_dump(mode="json", include=settings.model_fields_set, exclude_none=True)
    return {f"ORCHESTRATOR_{name.upper()}": _as_variable(value) for name, value in given.items()}


def _as_variable(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _did_not_start(folders: Folders) -> LocalStackError:
    log = folders.log("keeper")
    return LocalStackError(
        f"The keeper of the local stack did not start: {last_line(log).rstrip('.')}.", recovery=f"See the log {log}."
    )


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return "unknown"
