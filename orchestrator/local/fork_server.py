"""One process that has imported everything, and that dispatcher and workers are forked from: both its ends.

Each of them would import the same libraries, which is most of what a start of the stack costs. `multiprocessing` has a
fork server too; it starts a process more to count semaphores, imports the keeper's program again in every child, and
blocks the keeper until the imports are done.

The keeper and the server talk through a socket that keeps messages apart. The keeper asks with the words and the
variables of a new process, and hands over its log and its lifeline; the server answers with the process's id, and later
with its exit code. When the keeper is gone the server ends, and what it forked learns that from its lifeline.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from orchestrator.local.lifeline import KEEPER_FD

SOCKET_FD: Final = "ORCHESTRATOR_FORK_SERVER_FD"
MESSAGE_BYTES: Final = 65536


# --- in the server


def serve() -> list[str]:
    """Fork a process for each request. Returns in the new processes only, with their words; exits with the keeper."""
    keeper = socket.socket(fileno=int(os.environ.pop(SOCKET_FD)))
    keeper.set_inheritable(False)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    while True:
        readable, _, _ = select.select([keeper, woken], [], [])
        if woken in readable:
            woken.recv(MESSAGE_BYTES)
            _tell_who_ended(keeper)
        if keeper in readable:
            message, descriptors, _, _ = socket.recv_fds(keeper, MESSAGE_BYTES, 2)
            if not message:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (keeper, woken, wake):
                    end.close()
                return _begin(json.loads(message), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            keeper.send(json.dumps({"started": pid}).encode())


def _tell_who_ended(keeper: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        keeper.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def _begin(request: dict[str, Any], log: int, lifeline: int) -> list[str]:
    """What a new program would find: a session, a log and variables of its own. Returns its words."""
    os.setsid()
    words: list[str] = request["words"]
    with suppress(OSError):  # the command that a listing of processes shows is the server's; this is the name beside it
        Path("/proc/thread-self/comm").write_text(words[0])
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.environ.update(request["variables"], **{KEEPER_FD: str(lifeline)})
    return words


# --- in the keeper


class Forked:
    """A process of the server, with the parts of `asyncio.subprocess.Process` that its keeper uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Returns its exit code; the one of SIGKILL where the server ended first, and with it whoever would know."""
        return await asyncio.shield(self.code)

    def send_signal(self, number: int) -> None:
        if self.code.done():
            raise ProcessLookupError
        os.kill(self.pid, number)


class ForkServer:
    """Starts the server when it is needed, and again when it ended. Used in the keeper's event loop only."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._server: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._asked: deque[asyncio.Future[Forked]] = deque()
        self._running: dict[int, Forked] = {}
        self._starting = asyncio.Lock()

    async def start(self, words: Sequence[str], variables: Mapping[str, str], log: int, lifeline: int) -> Forked:
        """Returns when the process is there. Raises `OSError` when the server ends before."""
        async with self._starting:
            if self._socket is None:
                self._socket = await self._start_server()
            request = json.dumps({"words": list(words), "variables": dict(variables)}).encode()
            socket.send_fds(self._socket, [request], [log, lifeline])
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        return await answer

    async def stop(self) -> None:
        """End the server. It is called when its processes have ended."""
        if self._socket is not None:
            self._lose_server()
        if self._server is not None:
            await self._server.wait()

    async def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, self._log.open("ab") as log:
            # A session of its own: what ends a process's group must not reach the keeper.
            self._server = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {SOCKET_FD: str(theirs.fileno())},
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        asyncio.get_running_loop().add_reader(ours, self._read, ours)
        return ours

    def _read(self, ours: socket.socket) -> None:
        try:
            message = ours.recv(MESSAGE_BYTES)
        except OSError:
            message = b""
        if not message:
            self._lose_server()
            return
        answer = json.loads(message)
        if "started" in answer:
            process = self._running[answer["started"]] = Forked(answer["started"])
            self._asked.popleft().set_result(process)
        else:
            self._running.pop(answer["ended"]).code.set_result(answer["code"])

    def _lose_server(self) -> None:
        """Nobody will tell any more how its processes end. Who started them cuts their lifelines, and they end."""
        assert self._socket is not None
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(OSError("the process that starts it has ended"))
        self._asked.clear()
        for process in self._running.values():
            process.code.set_result(-signal.SIGKILL)
        self._running.clear()
