"""What an attempt may use: memory, processor time, processes, output, disk. One thread looks at all attempts.

Where attempts have control groups, the kernel bounds memory and processes and this thread only reads what it noted; else
it adds up /proc. RLIMIT_* would not do: they break Node and Bun, or count per account, or per process.

A look costs about 15 µs a process of the machine, all attempts together. The pause between two looks is a hundred
times what the last one took, and at least a second: an attempt may be over its limit for that long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from orchestrator import control_group
from orchestrator.plan.model import Limits
from orchestrator.process_list import CLOCK_TICKS, PAGE_BYTES, Process, read_file, read_processes
from orchestrator.process_tree import sort_into_trees
from orchestrator.supervisor import StopSignal
from workers.folder_size import FolderSize
from workers.judgement import OVER_LIMIT

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 5.0
SHARE_OF_A_CORE: Final = 0.01
FOLDER_SECONDS: Final = 0.005
"""What one look may spend on all workspaces together: a large one is walked over many looks."""


@dataclass
class Meter:
    """What one attempt has used, in all programs that it ran: the agent and then the check."""

    cookie: str
    limits: Limits
    stop: StopSignal
    group: str | None = None
    max_output_bytes: int | None = None
    folder: FolderSize | None = None
    max_folder_bytes: int | None = None
    sessions: set[int] = field(default_factory=set)
    output_bytes: int = 0
    cpu_ticks: int = 0
    _ticks_at_last_look: int = 0

    def count_output(self, count: int) -> None:
        """The agent has written so many bytes."""
        self.output_bytes += count
        _judge(self, _size("wrote {} of output", self.output_bytes, self.max_output_bytes))

    def look(self, processes: Sequence[Process]) -> None:
        """Hold the tree's living processes against the limits, and stop the attempt at the first that it is over."""
        self._add_cpu(processes)
        threads = sum(process.threads for process in processes)
        _judge(
            self,
            self.verdict_of_kernel()
            or _size("used {} of memory", self._memory_bytes(processes), self.limits.memory_bytes)
            or _count("used {} s of processor time", self._cpu_seconds(), self.limits.cpu_seconds, " s")
            or _count("had {} processes and threads at once", threads, self.limits.processes),
        )

    def look_at_folder(self, seconds: float) -> None:
        if self.folder is not None and self.max_folder_bytes is not None:
            _judge(self, _size("filled its workspace with {}", self.folder.measure(seconds), self.max_folder_bytes))

    def look_back(self) -> None:
        """When a program has ended: was it the kernel that ended it, at a limit?"""
        _judge(self, self.verdict_of_kernel())

    def verdict_of_kernel(self) -> str | None:
        """What the attempt's control group has noted, in words; None when it noted nothing."""
        if self.group is None:
            return None
        if control_group.read_counters(self.group, "memory.events").get("oom_kill"):
            peak = control_group.read_figure(self.group, "memory.peak") or self.limits.memory_bytes
            return _words("used {} of memory", _bytes(peak or 0), _bytes(self.limits.memory_bytes or 0))
        if control_group.read_counters(self.group, "pids.events").get("max"):
            return f"wanted more than {self.limits.processes} processes and threads at once, which is the limit"
        return None

    def _add_cpu(self, processes: Sequence[Process]) -> None:
        """A process that ends takes its time along, unless its parent waits for it: the sum may fall, the use may not."""
        now = sum(process.cpu_ticks for process in processes)
        self.cpu_ticks += max(0, now - self._ticks_at_last_look)
        self._ticks_at_last_look = now

    def _cpu_seconds(self) -> float:
        exact = control_group.read_counters(self.group, "cpu.stat").get("usage_usec") if self.group else None
        return self.cpu_ticks / CLOCK_TICKS if exact is None else exact / 1e6

    def _memory_bytes(self, processes: Sequence[Process]) -> int:
        """An upper bound that costs nothing; where that is over the limit, the exact figure, which costs milliseconds:
        a page that twenty forked processes share is then counted once."""
        bound = sum(process.resident_pages for process in processes) * PAGE_BYTES
        if self.limits.memory_bytes is None or bound <= self.limits.memory_bytes:
            return bound
        return sum(_proportional_bytes(process) for process in processes)


class LimitsKeeper:
    """The thread. Attempts register their meters; it stops those that are over a limit."""

    def __init__(self) -> None:
        self._meters: list[Meter] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="limits", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, meter: Meter) -> Iterator[None]:
        with self._lock:
            self._meters.append(meter)
        try:
            yield
        finally:
            with self._lock:
                self._meters.remove(meter)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=LONGEST_PAUSE_SECONDS)

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._closed.wait(pause):
            began = time.thread_time()
            try:
                self._look()
            except Exception:
                # Without this thread nothing bounds an agent: it outlives every surprise.
                log.exception("The limits could not be looked at.", extra={"event": "limits.failed"})
            cost = time.thread_time() - began
            pause = min(max(LOOK_SECONDS, cost / SHARE_OF_A_CORE), LONGEST_PAUSE_SECONDS)

    def _look(self) -> None:
        with self._lock:
            running = [meter for meter in self._meters if meter.sessions]
        if not running:
            return
        sessions = {session: meter.cookie for meter in running for session in list(meter.sessions)}
        trees = sort_into_trees(read_processes(), [meter.cookie for meter in running], sessions)
        for meter in running:
            meter.look(trees[meter.cookie])
            meter.look_at_folder(FOLDER_SECONDS / len(running))


def _judge(meter: Meter, over: str | None) -> None:
    if over is not None:
        meter.stop.set(OVER_LIMIT + over)


def _size(what: str, used: int | None, limit: int | None) -> str | None:
    if used is None or limit is None or used <= limit:
        return None
    return _words(what, _bytes(used), _bytes(limit))


def _count(what: str, used: float, limit: float | None, unit: str = "") -> str | None:
    if limit is None or used <= limit:
        return None
    return _words(what, f"{used:.4g}", f"{limit:g}{unit}")


def _words(what: str, used: str, limit: str) -> str:
    return f"{what.format(used)}, the limit is {limit}"


def _bytes(count: int) -> str:
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _proportional_bytes(process: Process) -> int:
    """Its memory, with each shared page divided by those who share it, and what of it was swapped out."""
    with suppress(OSError, ValueError):
        lines = read_file(f"/proc/{process.pid}/smaps_rollup").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith((b"Pss:", b"SwapPss:")))
    return process.resident_pages * PAGE_BYTES
