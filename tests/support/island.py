"""A machine of its own for some processes: a network namespace whose one link can be cut in one direction.

Two namespaces are joined by a pair of virtual interfaces: the shore, where relays to the servers listen, and the island.
Nothing of the machine's own network is touched. Needs root and iproute2's `ip`.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Final

from tests.support.relay import Relay

SHORE: Final = "10.98.7.1"
ISLAND: Final = "10.98.7.2"
NOBODY: Final = "02:00:00:00:00:01"
"""A hardware address that nobody has: what is sent there is lost without a word, as a firewall's DROP loses it."""
CLONE_NEWNET: Final = 0x40000000


def why_no_island() -> str | None:
    """Why namespaces can't be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    name = f"orchestrator-try-{secrets.token_hex(4)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces can't be made here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Island:
    """`command` is put before that of a process which is to live there; it reaches `SHORE` alone."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self._shore, self._island = f"shore-{mark}", f"island-{mark}"
        self._relays: list[Relay] = []
        _ip("netns", "add", self._shore)
        _ip("netns", "add", self._island)
        ends = (f"s{mark}", f"i{mark}")
        self._shore_end = ends[0]
        _ip(
            "link", "add", ends[0], "netns", self._shore, "type", "veth", "peer", "name", ends[1], "netns", self._island
        )
        for space, end, address in ((self._shore, ends[0], SHORE), (self._island, ends[1], ISLAND)):
            _ip("-n", space, "addr", "add", f"{address}/30", "dev", end)
            _ip("-n", space, "link", "set", end, "up")
        self.command = ("nsenter", f"--net=/run/netns/{self._island}")

    def relay(self, server: Path, port: int) -> None:
        """Let the island reach this server at `SHORE`:`port`."""
        self._relays.append(Relay(self._listener(port), server))

    def cut(self) -> None:
        """From now on nothing from the shore arrives on the island; what the island sends does arrive."""
        _ip(
            "-n",
            self._shore,
            *("neigh", "replace", ISLAND, "lladdr", NOBODY, "dev", self._shore_end, "nud", "permanent"),
        )

    def heal(self) -> None:
        _ip("-n", self._shore, "neigh", "del", ISLAND, "dev", self._shore_end)

    def close(self) -> None:
        """Remove it; the processes on it have ended."""
        for relay in self._relays:
            relay.close()
        for space in (self._shore, self._island):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def _listener(self, port: int) -> socket.socket:
        """A socket belongs to the namespace of the thread that made it: so one enters the shore for that."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/run/netns/{self._shore}").open() as space:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(space.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((SHORE, port)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
