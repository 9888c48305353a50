"""Running one program under a deadline, an idle clock and a stop signal, to the end of its whole process tree.

Everything happens in the calling thread, with one `poll` over the program's two pipes, its pidfd and the stop signal.
The program is reaped only after its tree was ended: until then its number, which is also that of its session, can
belong to nobody else.
"""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import IO, Final

from orchestrator import control_group
from orchestrator.accounts import Account, acting_as, find_program, of_process
from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import end_tree
from orchestrator.program_output import BoundedOutput, LineSplitter, OutputKeeper

TIMEOUT: Final = "timeout"
IDLE_TIMEOUT: Final = "idle_timeout"

_READ_BYTES: Final = 64 * 1024
_LINGER_SECONDS: Final = 0.25
"""What is left for the last writers of the pipes (`cmd > >(tee log)`) when the program itself has ended."""
_DRAIN_READS: Final = 32
"""More than both pipes hold. After the tree has ended, only a process out of our reach can still write, and without end."""
_LONGEST_POLL_SECONDS: Final = 3600.0
"""poll counts milliseconds in 32 bits: a deadline of a month would overflow it."""


class StopSignal:
    """Tells a supervisor in another thread to end its program. The first reason stands.

    One signal may be watched by several supervisors, one after the other: once set it stays set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reactions: list[Callable[[], None]] = []

    @property
    def reason(self) -> str | None:
        """Why to stop, or None while nobody has asked."""
        return self._reason

    def set(self, reason: str) -> None:
        """Ask for the end. Without effect when somebody has asked before, or after `close`."""
        with self._lock:
            if self._reason is None and self._descriptor >= 0:
                self._reason = reason
                os.eventfd_write(self._descriptor, 1)
                for reaction in self._reactions:
                    reaction()

    @contextmanager
    def reacting(self, reaction: Callable[[], None]) -> Iterator[None]:
        """Call `reaction` when the signal is set, at once where it is set already, and not any more once the block is left.
        It is called in the thread of whoever sets the signal, and must not wait for anything."""
        with self._lock:
            self._reactions.append(reaction)
            if self._reason is not None:
                reaction()
        try:
            yield
        finally:
            with self._lock:
                self._reactions.remove(reaction)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        with self._lock:  # never a write to a descriptor that is somebody else's by now
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> StopSignal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Ending:
    """How a supervised program ended.

    `exit_code` or `signal` is set, whichever ended the program; neither when it was stopped before it began.
    `stopped` says who ended it: "timeout", "idle_timeout", the reason of the stop signal, or None for the program
    itself. `duration_seconds` is the program's own, by the monotonic clock; `started_at` is wall clock, UTC.
    """

    exit_code: int | None
    signal: int | None
    stopped: str | None
    started_at: datetime
    duration_seconds: float
    output: BoundedOutput


def supervise(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_seconds: float | None,
    idle_timeout_seconds: float | None,
    kill_grace_seconds: float,
    on_line: Callable[[str, str], None],
    stop: StopSignal,
    cookie: str,
    stdin_file: Path | None = None,
    group: str | None = None,
    oversee: Callable[[int], AbstractContextManager[None]] | None = None,
    redact: Callable[[str], str] | None = None,
    account: Account | None = None,
) -> Ending:
    """Run `argv` in a session of its own and end its whole tree, however it ends: nothing it started outlives this call.

    `on_line("stdout" | "stderr", text)` gets each line as it comes, without its newline, invalid UTF-8 as replacement
    characters, a very long line in pieces (`program_output.LONGEST_LINE`). If it raises, the program is ended and the
    error raised here. Both clocks are monotonic; output on either stream resets the idle clock; None means no limit.
    The end is TERM to the tree, `kill_grace_seconds`, KILL. `env` is the whole environment but for the cookie, which
    is added. stdin is `stdin_file`, else /dev/null. `group` is the control group to run in. `oversee(pid)` is entered
    when the program runs and left when its tree has ended, before the number can be anybody else's. `redact` is what
    becomes of each line before anybody sees it. `account` is whose program it is to be; None: ours.

    Raises FileNotFoundError or PermissionError when the program can't be started (`filename` names it, or `cwd`), and
    OSError when the kernel refuses, for instance an argument over 128 KiB.
    """
    started_at, start = datetime.now(UTC), time.monotonic()
    if stop.reason:
        return Ending(None, None, stop.reason, started_at, 0.0, BoundedOutput("", 0))
    with _Reader(stop, on_line, redact) as reader:
        environment = {**env, COOKIE_VARIABLE: cookie}
        process = _start(argv, cwd=cwd, env=environment, stdin_file=stdin_file, group=group, account=account)
        try:
            with ExitStack() as overseen:
                try:
                    if oversee is not None:
                        overseen.enter_context(oversee(process.pid))
                    reader.watch(process)
                    reader.run(start, timeout_seconds, idle_timeout_seconds)
                finally:
                    end_tree(
                        process.pid, cookie=cookie, grace_seconds=kill_grace_seconds, group=group, wait=reader.read_for
                    )
        finally:
            process.poll()
        reader.drain()
    if reader.failure:
        raise reader.failure
    code = process.returncode  # None: it survived KILL; a wait for it could take for ever
    return Ending(
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        stopped=reader.stopped,
        started_at=started_at,
        duration_seconds=(reader.ended_at or time.monotonic()) - start,
        output=reader.kept.output(),
    )


def _start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin_file: Path | None,
    group: str | None,
    account: Account | None,
) -> subprocess.Popen[bytes]:
    command, stdin_path = list(argv), stdin_file or Path(os.devnull)
    if group is None:
        with acting_as(account):
            stdin: IO[bytes] = stdin_path.open("rb")
    else:
        _require_program(command[0], cwd, env, account)
        command, stdin = control_group.entering(group, command, str(stdin_path))
    with stdin:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            **of_process(account),
        )


def _require_program(name: str, cwd: Path, env: Mapping[str, str], account: Account | None) -> None:
    """Raise what `Popen` raises when it can't start `name`: a shell that stands between only writes a line."""
    where = name if "/" not in name else str(cwd / name)
    if find_program(where, path=env.get("PATH", os.defpath), account=account) is None:
        number = errno.EACCES if os.access(where, os.F_OK) else errno.ENOENT
        raise OSError(number, os.strerror(number), name)


class _Reader:
    """Waits for whatever happens next: output, the program's end, a stop, or the end of the time given."""

    def __init__(
        self, stop: StopSignal, on_line: Callable[[str, str], None], redact: Callable[[str], str] | None
    ) -> None:
        self.stopped: str | None = None
        self.ended_at: float | None = None
        self.failure: Exception | None = None
        self.kept = OutputKeeper()
        self._stop = stop
        self._on_line = on_line
        self._redact = redact
        self._last_output = time.monotonic()
        self._selector = selectors.PollSelector()  # the one kind that needs no descriptor of its own
        self._streams: dict[IO[bytes], tuple[str, LineSplitter]] = {}
        self._resources = ExitStack()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._resources.close()

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert pipe is not None
            self._resources.callback(pipe.close)
            self._streams[pipe] = (name, LineSplitter())
            self._selector.register(pipe, selectors.EVENT_READ, partial(self._read, pipe))
        pidfd = os.pidfd_open(process.pid)
        self._resources.callback(os.close, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, partial(self._note_end, pidfd))
        self._selector.register(self._stop, selectors.EVENT_READ, self._note_stop)

    def run(self, start: float, timeout_seconds: float | None, idle_timeout_seconds: float | None) -> None:
        """Read until the program has ended, is out of time, or is to be stopped: `ended_at` or `stopped` says which."""
        deadline = start + (inf if timeout_seconds is None else timeout_seconds)
        idle_seconds = inf if idle_timeout_seconds is None else idle_timeout_seconds
        while not (self.ended_at or self.stopped or self.failure):
            self._handle_next(min(deadline, self._last_output + idle_seconds) - time.monotonic())
            if not (self.ended_at or self.stopped):
                now = time.monotonic()
                if now >= deadline:
                    self.stopped = TIMEOUT
                elif now >= self._last_output + idle_seconds:
                    self.stopped = IDLE_TIMEOUT
        if self.ended_at:
            self._linger(self.ended_at + _LINGER_SECONDS)

    def read_for(self, seconds: float) -> None:
        """Go on reading while the tree goes: a program that can't write its last words would not end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._handle_next(left)

    def drain(self) -> None:
        """Hand on what still stands in the pipes, and the last lines, which have no newline."""
        for _ in range(_DRAIN_READS):
            if not self._handle_next(0):
                break
        for name, splitter in self._streams.values():
            self._hand_on(name, splitter.finish())

    def _linger(self, deadline: float) -> None:
        while self._streams and (left := deadline - time.monotonic()) > 0:
            self._handle_next(left)

    def _handle_next(self, timeout_seconds: float) -> bool:
        """Wait at most so long for something to happen and handle it; whether something did."""
        ready = self._selector.select(min(max(timeout_seconds, 0.0), _LONGEST_POLL_SECONDS))
        for key, _ in ready:
            key.data()
        return bool(ready)

    def _read(self, pipe: IO[bytes]) -> None:
        name, splitter = self._streams[pipe]
        data = os.read(pipe.fileno(), _READ_BYTES)
        if data:
            self._last_output = time.monotonic()
            self.kept.total_bytes += len(data)
            self._hand_on(name, splitter.feed(data))
        else:
            self._selector.unregister(pipe)
            del self._streams[pipe]
            self._hand_on(name, splitter.finish())

    def _hand_on(self, stream: str, lines: Iterable[str]) -> None:
        for written in lines:
            line = self._redact(written) if self._redact else written
            self.kept.add(line + "\n")
            if self.failure is None:
                try:
                    self._on_line(stream, line)
                except Exception as error:  # raised again once the tree has ended
                    self.failure = error

    def _note_end(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)  # it stays readable: the next poll would return at once
        self.ended_at = time.monotonic()

    def _note_stop(self) -> None:
        self._selector.unregister(self._stop)
        if self.stopped is None and self.ended_at is None:
            self.stopped = self._stop.reason
