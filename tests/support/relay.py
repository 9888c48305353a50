"""A relay between a client and a server's Unix socket that can lose what the server has answered."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

COMMITTED: Final = b"COMMIT\0"
"""The end of PostgreSQL's answer to a COMMIT: by then it is done."""


class Relay:
    """Forwards bytes in both directions for every connection that `listener` accepts. Close it after its clients."""

    def __init__(self, listener: socket.socket, server: Path) -> None:
        self._listener = listener
        self._server = server
        self._lock = threading.Lock()
        self._replies_to_lose = 0
        self._lost = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def lose_commit_replies(self, count: int) -> None:
        """Let the next transactions of clients commit, and cut each connection before the client hears of it."""
        with self._lock:
            self._replies_to_lose, self._lost = count, 0

    @property
    def lost(self) -> int:
        """How many replies were lost since the last call of `lose_commit_replies`."""
        return self._lost

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            for end in self._open:
                _cut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:  # it is away: so are we
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, target, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._forward, args=(source, target, answers), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and COMMITTED in data and self._is_to_be_lost():
                    break
                target.sendall(data)
        for end in (source, target):
            _cut(end)
        with self._lock:
            self._open -= {source, target}

    def _is_to_be_lost(self) -> bool:
        with self._lock:
            if self._replies_to_lose == 0:
                return False
            self._replies_to_lose -= 1
            self._lost += 1
            return True


def unix_listener(path: Path) -> socket.socket:
    """Listen where a client of this process's account may connect."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def _cut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
