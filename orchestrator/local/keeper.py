"""The keeper: one process a state folder, which starts, watches and stops the embedded stack.

It lives as long as somebody is connected to its socket: a command that ends, also by kill -9, closes its connection,
and with the last one everything stops. That it is the only one is the lock's doing: the client that starts it takes the
lock on `keeper.lock` and hands the locked descriptor down, so the lock is held without a gap until the keeper's end,
whatever end that is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shlex
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from orchestrator.closed_process import close_to_others
from orchestrator.errors import LocalStackError
from orchestrator.local.folders import Folders, open_folders
from orchestrator.local.leftovers import end_leftovers
from orchestrator.local.protocol import HEARTBEAT_SECONDS, SOCKET_NAME, Request, encode, error_message
from orchestrator.local.stack import LocalStack

logger = logging.getLogger("orchestrator.local.keeper")

FIRST_CLIENT_SECONDS: Final = 5.0
"""How long it waits for the client that started it."""
REQUEST_SECONDS: Final = 10.0


class Keeper:
    """Serves clients until the last one is gone, then stops the stack."""

    def __init__(self, folders: Folders, version: str, stack_options: dict[str, Any]) -> None:
        self._version = version
        self._log = folders.log("keeper")
        self._socket_path = folders.make_run() / SOCKET_NAME
        self._stack = LocalStack(folders, on_hopeless=self._tell_all, **stack_options)
        self._clients: set[asyncio.StreamWriter] = set()
        self._last_client: asyncio.StreamWriter | None = None
        self._ending = asyncio.Event()
        self._nobody_came = asyncio.get_running_loop().call_later(FIRST_CLIENT_SECONDS, self._ending.set)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._ending.set)
        server = await asyncio.start_unix_server(self._serve, sock=_listen(self._socket_path))
        logger.info("The keeper serves %s.", self._socket_path, extra={"event": "keeper.started"})
        try:
            await self._ending.wait()
        finally:
            # From here on a new client finds no socket, waits for the lock and starts a keeper of its own.
            server.close()
            self._socket_path.unlink(missing_ok=True)
            await self._stack.stop()
            logger.info("The keeper has stopped everything.", extra={"event": "keeper.stopped"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its request to its end."""
        if self._ending.is_set():
            writer.close()  # it came between the last client's end and the close of the socket: it tries again
            return
        self._nobody_came.cancel()
        self._clients.add(writer)
        try:
            request = _parse(await asyncio.wait_for(reader.readline(), REQUEST_SECONDS))
            gone = asyncio.create_task(_end_of(reader))
            await self._answer(request, gone, writer)
            await gone
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            logger.warning("A client was not understood: %s.", error, extra={"event": "keeper.bad_client"})
        finally:
            self._clients.discard(writer)
            if self._clients:
                writer.close()
            else:
                # The last client learns by the end of its connection, which this process's end brings, that nothing
                # runs any more. A writer that nobody holds would be closed before that.
                self._last_client = writer
                self._ending.set()

    async def _answer(self, request: Request, gone: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        work = asyncio.create_task(self._provide(request))
        while not work.done() and not gone.done():
            await asyncio.wait({work, gone}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                writer.write(encode({"progress": self._stack.doing}))
        if gone.done():
            work.cancel()
            return
        with suppress(OSError):
            writer.write(encode(work.result()))
            await writer.drain()

    async def _provide(self, request: Request) -> dict[str, Any]:
        if request.version != self._version:
            return error_message(
                LocalStackError(
                    f"The local stack is run by version {self._version}, and this is version {request.version}.",
                    recovery="Wait until the other version's command has ended, or end it.",
                )
            )
        try:
            return {"ready": await self._stack.provide(request)}
        except LocalStackError as error:
            logger.error("%s", error, extra={"event": "keeper.failed"})  # noqa: TRY400 - the sentence is enough
            return error_message(error)
        except Exception as error:
            # A fault of this program: its client gets one line, the log the rest.
            logger.exception("The stack could not be started.", extra={"event": "keeper.failed"})
            return error_message(
                LocalStackError(f"The local stack failed: {error}.", recovery=f"See the log {self._log}.")
            )

    def _tell_all(self, error: LocalStackError) -> None:
        for writer in self._clients:
            writer.write(encode(error_message(error)))


async def _end_of(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(4096):
            pass


def _parse(line: bytes) -> Request:
    return Request(**json.loads(line))


def _listen(path: Path) -> socket.socket:
    """A socket that only this account may connect to. A stale one is replaced: the lock says that nobody serves it."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    return listener


def main() -> None:
    close_to_others()
    parser = argparse.ArgumentParser(prog="python -m orchestrator.local.keeper", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--lock-fd", type=int, required=True, help="open, and locked by the client that starts this")
    parser.add_argument("--version", required=True)
    parser.add_argument("--fork-server", required=True, help="its command, as a shell would write it")
    parser.add_argument("--worker-stop-seconds", type=float, required=True)
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)

    os.set_inheritable(words.lock_fd, False)  # the lock must end with this process, not with its children
    os.truncate(words.lock_fd, 0)
    os.pwrite(words.lock_fd, str(os.getpid()).encode(), 0)
    folders = open_folders(words.state_dir)
    end_leftovers(folders.leftovers)

    async def keep() -> None:
        stack_options = {
            "fork_server_command": shlex.split(words.fork_server),
            "worker_stop_seconds": words.worker_stop_seconds,
        }
        await Keeper(folders, words.version, stack_options).run()

    try:
        asyncio.run(keep())
    except (LocalStackError, OSError) as error:
        sys.exit(f"The keeper can't work: {error}")


if __name__ == "__main__":
    main()
