"""The guard's own process: `python -I -S guard_program.py CHANNEL OWNER LOG_FORMAT [GROUP]`.

It outlives its worker, and ends the agents' trees of a worker that died or stood still. CHANNEL is the number of a
socket that keeps messages apart:

    worker → guard    "UNTIL SESSION…"   the monotonic instant up to which the worker may be silent, or inf, and the
                                         sessions of its agents that run now
    guard → worker    "ending"           the worker was silent for too long: its agents are being killed
                      "ended"            that is done
    end of the socket                    the worker is gone

Nothing is installed for a bare interpreter, so that it starts in 50 ms and takes 8 MB; what it needs of this project
lies beside it.
"""

import logging
import math
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator import control_group
from orchestrator.process_tree import HELPERS, kill_trees

LONGEST_MESSAGE = 2**16

log = logging.getLogger("workers.guard")


def main(words: list[str]) -> None:
    channel, owner, log_format = socket.socket(fileno=int(words[0])), words[1], words[2]
    base = words[3] if len(words) > 3 else None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # whoever ends a whole service asks all its processes; we go last
    until = math.inf
    sessions: tuple[int, ...] = ()
    while True:
        if not _wait(channel, until):
            with suppress(OSError):
                channel.send(b"ending")  # before the first is killed: the worker must know whose doing their end is
            _kill(owner, sessions, base, with_helpers=False)
            _say(log_format, "stood still past its lease", owner)
            with suppress(OSError):
                channel.send(b"ended")
            until = math.inf
            continue
        message = _receive(channel)
        if not message:
            if _kill(owner, sessions, base, with_helpers=True):
                _say(log_format, "died", owner)
            return
        instant, *numbers = message.split()
        until, sessions = float(instant), tuple(map(int, numbers))


def _wait(channel: socket.socket, until: float) -> bool:
    """Whether there is something to read, at the latest when the time is over."""
    seconds = None if until == math.inf else max(0.0, until - time.monotonic())
    return bool(select.select([channel], [], [], seconds)[0])


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(LONGEST_MESSAGE)
    except ConnectionResetError:
        return b""


def _kill(owner: str, sessions: tuple[int, ...], base: str | None, *, with_helpers: bool) -> bool:
    """KILL the trees of the worker's attempts. Whether there were any: sessions that had not ended, or groups."""
    mine = f"{owner}."
    spared = () if with_helpers else (mine + HELPERS,)  # they end with the worker only
    groups = [path for name, path in control_group.groups_in(base) if name.startswith(mine)] if base else []
    kill_trees(lambda cookie: cookie.startswith(mine) and cookie not in spared, sessions=sessions, groups=groups)
    if with_helpers:  # a worker that only stood still removes them itself
        for group in groups:
            control_group.remove(group)
    return bool(sessions or groups)


def _say(log_format: str, what: str, owner: str) -> None:
    from orchestrator.logging import configure_logging  # noqa: PLC0415 - only now: it would take memory all along

    configure_logging(log_format)
    log.warning(
        "The worker %s; its agents were killed.",
        what,
        extra={"event": "guard.killed", "worker_pid": owner.split("-")[1]},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
