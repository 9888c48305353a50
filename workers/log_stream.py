"""The way of agents' lines into the database: one thread a worker, one batch at most every half second.

    agents' threads ──add──▶ open lines ──cut──▶ chunks ──the stream's thread──▶ write(batch)

Three bounds hold, whatever an agent prints and however long the database is away: lines become a compressed chunk as soon
as they fill one; an attempt keeps its head and a ring of its newest chunks; all chunks that wait to be written fit into
`max_pending_bytes`. What is cut is missing from the sequence numbers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from orchestrator.state.log_chunks import LogChunk, LogLine, encode_chunk, encode_line

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 128 * 1024
"""Text in a chunk at most, give or take its last line."""
_SMALLEST_CHUNK_BYTES: Final = 1024
"""What a chunk counts at least, so that an agent that says a word a second is bounded in rows too."""
_LONGEST_BACKOFF_SECONDS: Final = 10.0


@dataclass(frozen=True)
class LogBatch:
    """What to store, and which stored chunks (attempt id, sequence) to delete: the oldest of the rings."""

    chunks: list[LogChunk]
    drops: list[tuple[int, int]]


@dataclass
class _AttemptLog:
    """The lines of one attempt that the stream still holds, and what it knows of those that it has handed on."""

    attempt_id: int
    job_id: str
    subtask_id: int
    max_bytes: int
    started: float = field(default_factory=time.monotonic)
    open_lines: list[bytes] = field(default_factory=list)
    open_bytes: int = 0
    pending: deque[LogChunk] = field(default_factory=deque)
    drops: list[int] = field(default_factory=list)
    has_untold_loss: bool = False
    _lost_lines: int = 0
    _noted: set[int] = field(default_factory=set)
    _sequence: int = 0
    _head_room: int = field(init=False)
    _ring: deque[tuple[int, int]] = field(default_factory=deque)
    _ring_bytes: int = 0

    def __post_init__(self) -> None:
        self._head_room = self.max_bytes // 2

    @property
    def has_unwritten(self) -> bool:
        return bool(self.open_lines or self.pending or self.drops or self.has_untold_loss)

    @property
    def is_untouched(self) -> bool:
        """Nothing was ever written: there is nothing to wait for."""
        return self._sequence == 0 and not self.has_unwritten

    def add(self, stream: str, text: str) -> None:
        line = encode_line(LogLine(time.monotonic() - self.started, stream, text))
        self.open_lines.append(line)
        self.open_bytes += len(line)
        if self.open_bytes >= CHUNK_BYTES:
            self.cut()

    def cut(self) -> None:
        """Make a chunk of the open lines, and room for it."""
        if not (self.open_lines or self.has_untold_loss):
            return
        self._sequence += 1
        if self.has_untold_loss:
            words = f"{self._lost_lines} lines before this one are missing: the database could not be reached"
            self.open_lines.insert(0, encode_line(LogLine(time.monotonic() - self.started, "note", words)))
            self.has_untold_loss = False
            self._noted.add(self._sequence)
        content = encode_chunk(self.open_lines)
        self.pending.append(
            LogChunk(self.attempt_id, self._sequence, self.job_id, self.subtask_id, len(self.open_lines), content)
        )
        self._keep_bounded(max(self.open_bytes, _SMALLEST_CHUNK_BYTES))
        self.open_lines, self.open_bytes = [], 0

    def _keep_bounded(self, size: int) -> None:
        """Head chunks stay. Once the head is full, the newest chunks push out the oldest of the ring."""
        if not self._ring and size <= self._head_room:
            self._head_room -= size
            return
        self._ring.append((self._sequence, size))
        self._ring_bytes += size
        while self._ring_bytes > self.max_bytes // 2 and len(self._ring) > 1:
            oldest, freed = self._ring.popleft()
            self._ring_bytes -= freed
            waiting = next((chunk for chunk in self.pending if chunk.sequence == oldest), None)
            if waiting:
                self.pending.remove(waiting)
            else:  # written, or being written right now: a drop is carried out after that
                self.drops.append(oldest)

    def lose_oldest(self) -> int:
        """Give up the oldest waiting chunk; returns its size in bytes."""
        chunk = self.pending.popleft()
        self._lost_lines += chunk.line_count - (chunk.sequence in self._noted)  # a note that is lost is told anew
        self.has_untold_loss = True
        return len(chunk.content)


class LogStream:
    """Lines of all attempts of a worker, from any thread, to `write` in a thread of its own.

    `write` raises when the database is away; the batch is then kept and written again after a back-off. It must
    take a batch that it has stored already.
    """

    def __init__(
        self,
        write: Callable[[LogBatch], None],
        *,
        max_bytes_per_attempt: int,
        flush_seconds: float = 0.5,
        max_pending_bytes: int = 32 * 2**20,
    ) -> None:
        self._write = write
        self._max_bytes_per_attempt = max_bytes_per_attempt
        self._flush_seconds = flush_seconds
        self._max_pending_bytes = max_pending_bytes
        self._attempts: dict[int, _AttemptLog] = {}
        self._closing: set[int] = set()
        self._changed = threading.Condition()  # guards everything here; what is under way in `_write` excepted
        self._stopping = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="log-stream", daemon=True)
        self._thread.start()

    def open(self, attempt_id: int, job_id: str, subtask_id: int) -> None:
        """The attempt starts now: its lines' seconds count from here. Without it they count from its first line."""
        with self._changed:
            self._open(attempt_id, job_id, subtask_id)

    def add(self, attempt_id: int, job_id: str, subtask_id: int, stream: str, text: str) -> None:
        """One line. Never waits for the database."""
        with self._changed:
            log = self._open(attempt_id, job_id, subtask_id)
            was_idle = not log.open_lines
            log.add(stream, text)
            if not log.open_lines:
                self._lose_what_does_not_fit()
            if was_idle:
                self._changed.notify_all()

    def close(self, attempt_id: int, *, timeout_seconds: float = 10.0) -> bool:
        """Write what the attempt has, before its outcome is recorded; nothing may be added to it any more.

        False if the database stayed away for so long: the lines are then written when it is back.
        """
        with self._changed:
            log = self._attempts.get(attempt_id)
            if log is None:
                return True
            if log.is_untouched:
                del self._attempts[attempt_id]
                return True
            self._closing.add(attempt_id)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: attempt_id not in self._attempts, timeout_seconds)

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """Write what there is, once, and end the thread. What can't be written now is lost, and said so."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)
        with self._changed:
            unwritten = [log.attempt_id for log in self._attempts.values() if log.has_unwritten]
        if unwritten:
            logger.warning(
                "The last lines of %d attempts were lost: the database could not be reached.",
                len(unwritten),
                extra={"event": "log_stream.lines_lost", "attempt_ids": unwritten},
            )

    def _open(self, attempt_id: int, job_id: str, subtask_id: int) -> _AttemptLog:
        if attempt_id not in self._attempts:
            self._attempts[attempt_id] = _AttemptLog(attempt_id, job_id, subtask_id, self._max_bytes_per_attempt)
        return self._attempts[attempt_id]

    def _lose_what_does_not_fit(self) -> None:
        """The attempt that has most to write loses its oldest chunk, until the rest fits."""
        waiting = {key: sum(len(chunk.content) for chunk in log.pending) for key, log in self._attempts.items()}
        excess = sum(waiting.values()) - self._max_pending_bytes
        while excess > 0:
            largest = max(waiting, key=waiting.__getitem__)
            size = self._attempts[largest].lose_oldest()
            waiting[largest] -= size
            excess -= size

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wait_for_work()
                last = self._stopping
                batch = self._take_batch()
            self._write_or_put_back(batch)
            if last:
                return

    def _wait_for_work(self) -> None:
        """Idle without a tick; then half a second for more to come, but at once for an attempt that ends.

        Attempts that end while a batch is written go into the next one together. After a failure only time counts.
        """
        self._changed.wait_for(
            lambda: self._stopping or self._closing or any(log.has_unwritten for log in self._attempts.values())
        )
        if self._failures:
            seconds = min(self._flush_seconds * 2**self._failures, _LONGEST_BACKOFF_SECONDS)
            self._changed.wait_for(lambda: self._stopping, seconds)
        else:
            self._changed.wait_for(lambda: self._stopping or self._closing, self._flush_seconds)

    def _take_batch(self) -> LogBatch:
        batch = LogBatch([], [])
        for log in self._attempts.values():
            log.cut()
            batch.chunks.extend(log.pending)
            batch.drops.extend((log.attempt_id, sequence) for sequence in log.drops)
            log.pending.clear()
            log.drops.clear()
        return batch

    def _write_or_put_back(self, batch: LogBatch) -> None:
        try:
            if batch.chunks or batch.drops:
                self._write(batch)
        except Exception as error:
            with self._changed:
                self._put_back(batch)
                self._failures += 1
            if self._failures == 1:
                logger.warning(
                    "Agents' lines can't be written, they wait: %s", error, extra={"event": "log_stream.database_away"}
                )
            return
        if self._failures:
            logger.info("Agents' lines are written again.", extra={"event": "log_stream.database_back"})
        with self._changed:
            self._failures = 0
            self._forget_closed()

    def _put_back(self, batch: LogBatch) -> None:
        for chunk in reversed(batch.chunks):
            self._attempts[chunk.attempt_id].pending.appendleft(chunk)
        for attempt_id, sequence in batch.drops:
            self._attempts[attempt_id].drops.append(sequence)
        self._lose_what_does_not_fit()

    def _forget_closed(self) -> None:
        written: Iterable[int] = [key for key in self._closing if not self._attempts[key].has_unwritten]
        for attempt_id in written:
            del self._attempts[attempt_id]
            self._closing.discard(attempt_id)
        self._changed.notify_all()
