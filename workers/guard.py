"""The worker's side of its guard: a small process that outlives the worker and ends its agents.

The worker tells it, again and again, until when it may be silent; a worker that is killed can't, nor one that is stopped
(SIGSTOP, a frozen machine). The guard then kills the agents' trees before their leases are given to other workers.
"""

from __future__ import annotations

import logging
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from orchestrator.process_tree import owner_of_this_process
from orchestrator.supervisor import StopSignal
from workers.judgement import LEASE_LOST

log = logging.getLogger(__name__)

_PROGRAM: Final = Path(__file__).with_name("guard_program.py")

TELL_SECONDS: Final = 0.5
DEAF_SECONDS: Final = 5.0
"""A guard that has taken no message for so long, its socket being full, is killed and replaced."""
CLOSE_SECONDS: Final = 5.0


def guard_against_death_only(log_format: str) -> Guard:
    """The guard of a process without leases of attempts, which may stand still: a dispatcher, with its groups' checks."""
    return Guard(owner_of_this_process(), lambda: math.inf, group=None, log_format=log_format)


class Guard:
    """Starts the guard's process, keeps it informed, and starts another when it has ended.

    `silence_allowed_until()` is the monotonic instant from which on this worker's agents are to be killed unless more
    is heard of it; None leaves the last one standing, for a worker that can't speak for its leases.
    """

    def __init__(
        self, owner: str, silence_allowed_until: Callable[[], float | None], *, group: str | None, log_format: str
    ) -> None:
        self._words = [owner, log_format, *([] if group is None else [group])]
        self._allowed_until = silence_allowed_until
        self._last_instant = time.monotonic() + DEAF_SECONDS
        self._running: dict[int, StopSignal] = {}
        self._striking = False
        self._lock = threading.Lock()
        self._heard_at = time.monotonic()
        self._closed = threading.Event()
        self._process, self._channel = self._start()
        self._thread = threading.Thread(target=self._keep_telling, name="guard", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @contextmanager
    def holding(self, pid: int, stop: StopSignal) -> Iterator[None]:
        """Let the guard end this session too while the block runs. `stop` is set when the guard has done so, at the
        latest when the block is left: before anybody judges how the program ended."""
        with self._lock:
            self._running[pid] = stop
            self._tell()
            if self._striking:
                stop.set(LEASE_LOST)
        try:
            yield
        finally:
            with self._lock:
                self._listen()
                del self._running[pid]
                self._tell()

    def close(self) -> None:
        """Let it go, for the end of a process: it ends what is left, if anything, and itself."""
        self._closed.set()
        self._thread.join(timeout=CLOSE_SECONDS)
        with self._lock:
            self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=CLOSE_SECONDS)

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.send(self._message())  # it lies there when the guard begins to read: never does it know less than we
        with its:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(its.fileno()), *self._words],
                cwd="/",
                env={},  # above all without the cookie of an attempt that this worker may itself be part of
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        return process, ours

    def _keep_telling(self) -> None:
        while not self._closed.wait(TELL_SECONDS):
            try:
                with self._lock:
                    self._listen()
                    self._tell()
                    why = self._what_is_wrong()
                if why:
                    self._replace(why)
            except Exception:
                # Without this thread the guard would take the worker for dead: it outlives every surprise.
                log.exception("The guard could not be told.", extra={"event": "guard.not_told"})

    def _message(self) -> bytes:
        instant = self._allowed_until()
        if instant is not None:
            self._last_instant = instant
        return " ".join([repr(self._last_instant), *map(str, self._running)]).encode()

    def _tell(self) -> None:
        try:
            self._channel.send(self._message())
            self._heard_at = time.monotonic()
        except OSError:  # full, or gone: `_what_is_wrong` tells them apart
            pass

    def _listen(self) -> None:
        with suppress(OSError):
            while message := self._channel.recv(64):
                self._striking = message == b"ending"
                if self._striking:
                    for stop in self._running.values():
                        stop.set(LEASE_LOST)

    def _what_is_wrong(self) -> str | None:
        if self._process.poll() is not None:
            return "ended"
        return "stands still" if time.monotonic() - self._heard_at > DEAF_SECONDS else None

    def _replace(self, why: str) -> None:
        log.warning(
            "The guard of this worker %s; another one is started.",
            why,
            extra={"event": "guard.replaced", "pid": self._process.pid},
        )
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._channel.close()
            self._process, self._channel = self._start()
            self._striking = False
            self._heard_at = time.monotonic()
