"""One supervised process of the stack: started, started again when it ends, stopped when nobody needs it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from orchestrator.errors import LocalStackError
from orchestrator.local.folders import last_line
from orchestrator.local.fork_server import Forked, ForkServer
from orchestrator.local.leftovers import Leftovers

logger = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 10.0
"""A process that lived so long had started well; its end is an accident, not a fault of the set-up."""
HOPELESS_ENDS: Final = 3
"""So many ends in a row, none after it had settled, are a fault of the set-up."""
BACKOFF_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Program:
    """What to run and how to stop it."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    """All of a program's variables; of a forked process, those that are its own."""
    log: Path
    stop_signals: tuple[tuple[int, float], ...]
    """Each is sent in turn, then the process gets so many seconds; after the last its group is killed."""
    folder: Path | None = None
    fork_server: ForkServer | None = None
    """Where it is one of our own processes, and watches the keeper through `orchestrator.local.lifeline`: what forks
    it. `command` is then only its words."""


class Child:
    """A process that runs until `stop`. Made and used in the keeper's event loop only.

    `on_hopeless` is called, once, with an error in words when the process can't be kept running. It is still tried
    again and again: what is missing may come.
    """

    def __init__(self, program: Program, leftovers: Leftovers, on_hopeless: Callable[[LocalStackError], None]) -> None:
        self.program = program
        self.pid: int | None = None
        self._leftovers = leftovers
        self._on_hopeless = on_hopeless
        self._ends_in_a_row = 0
        self._process: asyncio.subprocess.Process | Forked | None = None
        self._pipe: int | None = None
        self._services_answer = False
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=program.name)

    async def until(self, is_ready: Callable[[int], bool]) -> None:
        """Return when `is_ready(pid)`. Raises `LocalStackError` when the process can't be kept running."""
        while not (self.pid is not None and is_ready(self.pid)):
            if self._ends_in_a_row >= HOPELESS_ENDS:
                raise self._hopeless()
            if self._stopping.is_set():
                raise LocalStackError(f"{self.program.name} is being stopped.")
            await asyncio.sleep(LOOK_SECONDS)

    def services_answer(self) -> None:
        """Tell the process, and each later one in its place, that database and broker answer."""
        self._services_answer = True
        self._tell()

    async def stop(self) -> None:
        self._stopping.set()
        for stop_signal, seconds in self.program.stop_signals:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.send_signal(stop_signal)
            finished, _ = await asyncio.wait({self._task}, timeout=seconds)
            if finished:
                break
        else:
            logger.warning(
                "The %s did not stop when asked; it is killed.",
                self.program.name,
                extra={"event": "keeper.killed", "program": self.program.name, "pid": self.pid},
            )
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        await self._task

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            why = await self._run_once()
            if self._stopping.is_set():
                return
            settled = time.monotonic() - started >= SETTLED_SECONDS
            self._ends_in_a_row = 1 if settled else self._ends_in_a_row + 1
            logger.error(
                "The %s ended by itself (%s); it is started again.",
                self.program.name,
                why,
                extra={"event": "keeper.restart", "program": self.program.name, "ends_in_a_row": self._ends_in_a_row},
            )
            if self._ends_in_a_row == HOPELESS_ENDS:
                self._on_hopeless(self._hopeless())
            backoff = min(BACKOFF_MAX_SECONDS, BACKOFF_SECONDS * 2 ** (self._ends_in_a_row - 1))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)

    async def _run_once(self) -> str:
        """Run the process to its end. Returns how it ended, in words."""
        try:
            with self.program.log.open("ab") as log:
                self._process = await (self._fork(log) if self.program.fork_server else self._execute(log))
        except OSError as error:
            self._close_pipe()
            return error.strerror or str(error)
        self.pid = self._process.pid
        self._leftovers.add(self.program.name, self.pid, self.program.stop_signals[0][0])
        if self._services_answer:
            self._tell()
        if self._stopping.is_set():
            # `stop` came while the process was being started, and found nobody to send its signal to.
            self._process.send_signal(self.program.stop_signals[0][0])
        code = await self._process.wait()
        self._leftovers.remove(self.pid)
        self._process, self.pid = None, None
        self._close_pipe()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def _execute(self, log: IO[bytes]) -> asyncio.subprocess.Process:
        # The kernel ties PR_SET_PDEATHSIG to the thread that starts a process: this one is the keeper's first.
        return await asyncio.create_subprocess_exec(
            *self.program.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self.program.environment,
            cwd=self.program.folder,
            start_new_session=True,
        )

    async def _fork(self, log: IO[bytes]) -> Forked:
        assert self.program.fork_server is not None
        lifeline, self._pipe = os.pipe()
        try:
            return await self.program.fork_server.start(
                self.program.command, self.program.environment, log.fileno(), lifeline
            )
        finally:
            os.close(lifeline)

    def _tell(self) -> None:
        if self._pipe is not None:
            with suppress(BrokenPipeError):
                os.write(self._pipe, b"\n")

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _hopeless(self) -> LocalStackError:
        said = last_line(self.program.log)
        return LocalStackError(
            f"The {self.program.name} does not start{': ' + said.rstrip('.') if said else ''}.",
            context={"program": self.program.name, "log": str(self.program.log)},
            recovery=f"See the log {self.program.log}.",
        )
