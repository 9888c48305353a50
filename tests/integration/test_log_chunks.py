"""Log chunks in a real database: idempotent, for living attempts only, read without a gap."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, text

from orchestrator.state.engine import create_engine
from orchestrator.state.log_chunks import (
    LOGS_CHANNEL,
    LogChunk,
    LogLine,
    decode_chunk,
    encode_chunk,
    encode_line,
    read_log_chunks,
    write_log_chunks,
)
from tests.support.services import PostgresService
from tests.support.waiting import wait_until
from workers.log_stream import LogStream

JOB = "3f2a9c000000"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """With one job of two subtasks and three attempts: 1 and 2 at subtask 1, 3 at subtask 2."""
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, title, plan, plan_digest, max_parallel_agents, parallelization_strategy)"
                " VALUES (:job, 'a job', '{}', '', 2, 'parallel_groups')"
            ),
            {"job": JOB},
        )
        connection.execute(text("INSERT INTO groups (job_id, number) VALUES (:job, 1)"), {"job": JOB})
        connection.execute(
            text(
                "INSERT INTO subtasks (job_id, subtask_id, group_number, title, agent, spec)"
                " SELECT :job, n, 1, 'a subtask', 'shell', '{}' FROM generate_series(1, 2) n"
            ),
            {"job": JOB},
        )
        for subtask_id, number, status in ((1, 1, "failed"), (1, 2, "running"), (2, 1, "running")):
            connection.execute(
                text(
                    "INSERT INTO attempts (job_id, subtask_id, number, worker, agent, status, lease_token,"
                    " lease_expires_at, finished_at) VALUES (:job, :subtask, :number, 'w', 'shell', :status, 't',"
                    " now(), CASE :status WHEN 'running' THEN NULL ELSE now() END)"
                ),
                {"job": JOB, "subtask": subtask_id, "number": number, "status": status},
            )
    yield engine
    engine.dispose()


def chunk(attempt_id: int, sequence: int, *texts: str, subtask_id: int = 1) -> LogChunk:
    lines = [encode_line(LogLine(0.5, "stdout", line)) for line in texts]
    return LogChunk(attempt_id, sequence, JOB, subtask_id, len(lines), encode_chunk(lines))


def write(engine: Engine, *chunks: LogChunk, drops: tuple[tuple[int, int], ...] = ()) -> None:
    with engine.begin() as connection:
        write_log_chunks(connection, chunks, drops)


def read(
    engine: Engine, subtask_id: int | None = None, after: dict[int, int] | None = None, limit: int = 100
) -> list[str]:
    with engine.connect() as connection:
        found = read_log_chunks(connection, JOB, subtask_id, after=after, limit=limit)
    return [line.text for one in found for line in decode_chunk(one.content)]


def test_what_is_written_is_read_in_order(engine: Engine) -> None:
    write(engine, chunk(2, 2, "d"), chunk(3, 1, "e", subtask_id=2), chunk(2, 1, "b", "c"), chunk(1, 1, "a"))
    assert read(engine) == ["a", "b", "c", "d", "e"]
    assert read(engine, subtask_id=2) == ["e"]


def test_a_follower_reads_on_from_what_it_has(engine: Engine) -> None:
    write(engine, chunk(1, 1, "a"), chunk(2, 1, "b"), chunk(2, 2, "c"), chunk(3, 1, "d", subtask_id=2))
    assert read(engine, after={1: 1, 2: 1}) == ["c", "d"]
    seen: dict[int, int] = {}
    texts: list[str] = []
    with engine.connect() as connection:
        while found := read_log_chunks(connection, JOB, after=seen, limit=1):
            seen[found[0].attempt_id] = found[0].sequence
            texts += [line.text for line in decode_chunk(found[0].content)]
    assert texts == ["a", "b", "c", "d"]


def test_writing_again_is_writing_once(engine: Engine) -> None:
    write(engine, chunk(1, 1, "a"))
    write(engine, chunk(1, 1, "a"), chunk(1, 2, "b"))
    assert read(engine) == ["a", "b"]


def test_dropped_chunks_are_deleted(engine: Engine) -> None:
    write(engine, *(chunk(1, number, str(number)) for number in range(1, 6)))
    write(engine, chunk(1, 6, "6"), drops=((1, 3), (1, 4), (2, 1)))
    assert read(engine) == ["1", "2", "5", "6"]


def test_an_attempt_that_is_gone_does_not_hold_up_the_others(engine: Engine) -> None:
    write(engine, chunk(99, 1, "nobody's"), chunk(1, 1, "a"))
    assert read(engine) == ["a"]


def test_followers_are_woken_at_commit(engine: Engine, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute(f"LISTEN {LOGS_CHANNEL}")
        write(engine, chunk(1, 1, "a"), chunk(2, 1, "b"))
        woken = next(listener.notifies(timeout=30))
    assert woken.payload == JOB


def test_a_stream_outlives_a_restart_of_the_database(engine: Engine, postgres: PostgresService) -> None:
    stream = LogStream(
        lambda batch: write(engine, *batch.chunks, drops=tuple(batch.drops)),
        max_bytes_per_attempt=2**20,
        flush_seconds=0.05,
    )
    stream.add(1, JOB, 1, "stdout", "before")
    wait_until(lambda: read(engine) == ["before"], "the first line is written")
    postgres.stop()
    stream.add(1, JOB, 1, "stdout", "during")
    postgres.start()
    stream.add(1, JOB, 1, "stdout", "after")
    assert stream.close(1, timeout_seconds=60)
    assert read(engine) == ["before", "during", "after"]
    stream.stop()
