"""Agents' lines on their way to the database: batched, bounded, in order, and patient."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from orchestrator.errors import DatabaseUnavailable
from orchestrator.state.log_chunks import LogLine, decode_chunk
from tests.support.waiting import wait_until
from workers.log_stream import CHUNK_BYTES, LogBatch, LogStream

JOB = "3f2a9c000000"


class Store:
    """Stands at the stream's end: keeps chunks as the database does, and can be away."""

    def __init__(self) -> None:
        self.chunks: dict[tuple[int, int], bytes] = {}
        self.batches: list[LogBatch] = []
        self.away = threading.Event()
        self.refused = 0

    def write(self, batch: LogBatch) -> None:
        if self.away.is_set():
            self.refused += 1
            raise DatabaseUnavailable("The database is away.")
        self.batches.append(batch)
        self.chunks.update({(chunk.attempt_id, chunk.sequence): chunk.content for chunk in batch.chunks})
        for key in batch.drops:
            del self.chunks[key]

    def lines(self, attempt_id: int) -> list[LogLine]:
        return [
            line
            for (attempt, _), content in sorted(self.chunks.items())
            if attempt == attempt_id
            for line in decode_chunk(content)
        ]

    def texts(self, attempt_id: int) -> list[str]:
        return [line.text for line in self.lines(attempt_id)]

    def sequences(self, attempt_id: int) -> list[int]:
        return sorted(sequence for attempt, sequence in self.chunks if attempt == attempt_id)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def stream(store: Store) -> Iterator[LogStream]:
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=0.05)
    yield stream
    store.away.clear()
    stream.stop()


def add(stream: LogStream, attempt_id: int, text: str, name: str = "stdout") -> None:
    stream.add(attempt_id, JOB, 7, name, text)


def noise(size: int, seed: int = 0) -> str:
    """Text that does not compress well."""
    return random.Random(seed).randbytes(size // 2).hex()


def test_lines_come_in_order_with_stream_and_time(stream: LogStream, store: Store) -> None:
    stream.open(1, JOB, 7)
    add(stream, 1, "one")
    add(stream, 1, "zwö\0\ud800", "stderr")
    wait_until(lambda: len(store.lines(1)) == 2, "both lines are written without a close")
    assert [(line.stream, line.text) for line in store.lines(1)] == [("stdout", "one"), ("stderr", "zwö\0\ud800")]
    assert 0 <= store.lines(1)[0].seconds <= store.lines(1)[1].seconds
    chunk = store.batches[0].chunks[0]
    assert (chunk.attempt_id, chunk.sequence, chunk.job_id, chunk.subtask_id) == (1, 1, JOB, 7)


def test_lines_of_many_agents_share_a_batch(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=0.5)
    for attempt_id in range(100):
        for number in range(10):
            add(stream, attempt_id, f"line {number}")
    for attempt_id in range(100):
        wait_until(lambda key=attempt_id: len(store.lines(key)) == 10, "all lines are written")  # type: ignore[misc]
    assert len(store.batches) < 20
    stream.stop()


def test_close_writes_at_once_what_the_attempt_has(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=3600)
    add(stream, 1, "the last word")
    assert stream.close(1, timeout_seconds=60)
    assert store.texts(1) == ["the last word"]
    assert stream.close(1)
    assert stream.close(2)
    stream.stop()


def test_many_attempts_that_end_together_do_not_wait_for_each_other(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=3600)
    written: list[bool] = []

    def end(attempt_id: int) -> None:
        add(stream, attempt_id, "done")
        written.append(stream.close(attempt_id, timeout_seconds=60))

    threads = [threading.Thread(target=end, args=(attempt_id,)) for attempt_id in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [True] * 50
    assert all(store.texts(attempt_id) == ["done"] for attempt_id in range(50))
    stream.stop()


def test_of_a_flood_head_and_tail_are_kept_and_the_gap_shows_the_cut(stream: LogStream, store: Store) -> None:
    for number in range(200_000):
        add(stream, 1, f"line {number} of a flood")
    assert stream.close(1, timeout_seconds=60)
    texts, sequences = store.texts(1), store.sequences(1)
    assert texts[0] == "line 0 of a flood"
    assert texts[-1] == "line 199999 of a flood"
    assert sum(len(text) for text in texts) <= 2**20 + CHUNK_BYTES
    gaps = [(low, high) for low, high in pairwise(sequences) if high - low > 1]
    assert len(gaps) == 1


def test_a_slow_agent_is_bounded_in_rows(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=64 * 1024, flush_seconds=0.001)
    for number in range(130):
        add(stream, 1, str(number))
        wait_until(lambda expected=str(number): store.texts(1)[-1:] == [expected], "the line is written")  # type: ignore[misc]
    assert len(store.chunks) <= 64
    assert store.texts(1)[0] == "0"
    stream.stop()


def test_an_outage_loses_nothing_that_fits(stream: LogStream, store: Store) -> None:
    store.away.set()
    for number in range(100):
        add(stream, 1, f"line {number}")
    wait_until(lambda: store.refused >= 2, "it has been tried again")
    add(stream, 1, "a late line")
    assert not stream.close(1, timeout_seconds=0.01)
    store.away.clear()
    wait_until(
        lambda: store.texts(1) == [*(f"line {number}" for number in range(100)), "a late line"], "all is written"
    )
    assert [sequence for batch in store.batches for chunk in batch.chunks for sequence in [chunk.sequence]] == sorted(
        store.sequences(1)
    )


def test_a_long_outage_is_bounded_in_memory_and_the_loss_is_told(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=2**30, flush_seconds=0.02, max_pending_bytes=2**20)
    store.away.set()
    add(stream, 2, "a quiet agent")
    lines = [noise(10_000, seed) for seed in range(400)]
    for line in lines:
        add(stream, 1, line)
    wait_until(lambda: store.refused >= 2, "it has been tried again")
    store.away.clear()
    add(stream, 1, "after the outage")
    assert stream.close(1, timeout_seconds=60)
    assert stream.close(2, timeout_seconds=60)
    texts = [line.text for line in store.lines(1) if line.stream == "stdout"]
    assert texts == [*lines[-(len(texts) - 1) :], "after the outage"]
    assert sum(map(len, store.chunks.values())) < 2 * 2**20
    notes = [line.text for line in store.lines(1) if line.stream == "note"]
    assert notes[-1].startswith(f"{len(lines) - len(texts) + 1} lines before this one are missing")
    assert store.texts(2) == ["a quiet agent"]
    stream.stop()


def test_stop_writes_what_there_is(store: Store) -> None:
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=3600)
    add(stream, 1, "left over")
    stream.stop()
    assert store.texts(1) == ["left over"]


def test_stop_during_an_outage_says_what_is_lost(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.away.set()
    stream = LogStream(store.write, max_bytes_per_attempt=2**20, flush_seconds=0.01)
    add(stream, 1, "lost")
    wait_until(lambda: store.refused, "it was tried")
    stream.stop()
    assert [
        record.attempt_ids for record in caplog.records if getattr(record, "event", "") == "log_stream.lines_lost"
    ] == [[1]]
