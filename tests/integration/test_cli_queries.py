"""The views that the command line reads, from a real database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event

from orchestrator.errors import UnknownJob
from orchestrator.state import queries
from orchestrator.state.engine import create_engine
from tests.support import job_rows


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    yield engine
    engine.dispose()


def test_an_id_may_be_shortened_as_long_as_one_job_is_meant(engine: Engine) -> None:
    with engine.begin() as connection:
        for job_id in ("3f2a9c1b04d7", "3f2b00000000", "ff0000000000"):
            job_rows.insert_job(connection, job_id, title=f"Job {job_id[:4]}")
        assert queries.find_job(connection, "3f2a") == "3f2a9c1b04d7"
        assert queries.find_job(connection, "FF") == "ff0000000000"
        assert queries.find_job(connection, "3f2b00000000") == "3f2b00000000"
        with pytest.raises(UnknownJob, match=r"several jobs: .*3f2a9c1b04d7 \(Job 3f2a\)"):
            queries.find_job(connection, "3f2")
        for unknown in ("a", "", "job", "3f2a9c1b04d7a", "%"):
            with pytest.raises(UnknownJob):
                queries.find_job(connection, unknown)


def test_the_newest_job_is_the_one_submitted_last(engine: Engine) -> None:
    with engine.begin() as connection:
        with pytest.raises(UnknownJob, match="no job yet"):
            queries.newest_job(connection)
        job_rows.insert_job(connection, "bbbbbbbbbbbb")
        job_rows.insert_job(connection, "aaaaaaaaaaaa")
        assert queries.newest_job(connection) == "aaaaaaaaaaaa"


def test_jobs_are_listed_newest_first_with_their_counts(engine: Engine) -> None:
    with engine.begin() as connection:
        job_rows.insert_job(connection, "aaaaaaaaaaaa", status="failed")
        job_rows.insert_job(connection, "bbbbbbbbbbbb")
        job_rows.insert_group(connection, "bbbbbbbbbbbb", 1, {1: "completed", 2: "completed", 3: "in_progress"})
        newest, oldest = queries.list_jobs(connection, limit=20)
        assert (newest.id, dict(newest.subtasks)) == ("bbbbbbbbbbbb", {"completed": 2, "in_progress": 1})
        assert (oldest.id, dict(oldest.subtasks)) == ("aaaaaaaaaaaa", {})
        assert [job.id for job in queries.list_jobs(connection, limit=1)] == ["bbbbbbbbbbbb"]
        assert [job.id for job in queries.list_jobs(connection, limit=9, status="failed")] == ["aaaaaaaaaaaa"]


def test_a_job_is_read_with_the_newest_attempt_of_each_subtask(engine: Engine) -> None:
    with engine.begin() as connection:
        job_rows.insert_job(connection, "aaaaaaaaaaaa")
        job_rows.insert_group(connection, "aaaaaaaaaaaa", 2, {4: "pending"})
        job_rows.insert_group(connection, "aaaaaaaaaaaa", 1, {2: "in_progress", 1: "completed"})
        ended = {"status": "timeout", "finished_at": "now", "files_changed": ["a.py"]}
        job_rows.insert_attempt(connection, "aaaaaaaaaaaa", 2, 1, **ended)
        job_rows.insert_attempt(connection, "aaaaaaaaaaaa", 2, 2)
    view = queries.job_view(engine, "aaaaaaaaaaaa")
    assert [(group.number, [s.subtask_id for s in group.subtasks]) for group in view.groups] == [(1, [1, 2]), (2, [4])]
    first, second = view.groups[0].subtasks
    assert first.attempt is None
    assert second.attempt is not None
    assert (second.attempt.number, second.attempt.status) == (2, "running")
    assert second.attempt.duration_seconds >= 0
    with pytest.raises(UnknownJob):
        queries.job_view(engine, "bbbbbbbbbbbb")


def test_the_number_of_statements_does_not_grow_with_the_job(engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "after_cursor_execute", lambda *args: statements.append(args[2]))
    counts = []
    for job_id, size in (("aaaaaaaaaaaa", 1), ("bbbbbbbbbbbb", 50)):
        with engine.begin() as connection:
            job_rows.insert_job(connection, job_id)
            job_rows.insert_group(connection, job_id, 1, dict.fromkeys(range(1, size + 1), "in_progress"))
            for subtask_id in range(1, size + 1):
                job_rows.insert_attempt(connection, job_id, subtask_id)
        statements.clear()
        queries.job_view(engine, job_id)
        with engine.connect() as connection:
            queries.list_jobs(connection, limit=10)
            queries.latest_chunks(connection, job_id, {})
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_only_newer_chunks_of_running_attempts_are_read(engine: Engine) -> None:
    with engine.begin() as connection:
        job_rows.insert_job(connection, "aaaaaaaaaaaa")
        job_rows.insert_group(connection, "aaaaaaaaaaaa", 1, {1: "in_progress", 2: "completed"})
        running = job_rows.insert_attempt(connection, "aaaaaaaaaaaa", 1)
        ended = job_rows.insert_attempt(connection, "aaaaaaaaaaaa", 2, status="completed", finished_at="now")
        for sequence in (1, 2):
            job_rows.write_lines(connection, "aaaaaaaaaaaa", 1, running, sequence, f"line {sequence}")
        job_rows.write_lines(connection, "aaaaaaaaaaaa", 2, ended, 1, "over")
        (chunk,) = queries.latest_chunks(connection, "aaaaaaaaaaaa", {})
        assert (chunk.attempt_id, chunk.subtask_id, chunk.sequence) == (running, 1, 2)
        assert queries.latest_chunks(connection, "aaaaaaaaaaaa", {running: 2}) == []
        assert queries.latest_chunks(connection, "aaaaaaaaaaaa", {running: 1}) == [chunk]


def test_a_subtask_that_is_not_there_is_named(engine: Engine) -> None:
    with engine.begin() as connection:
        job_rows.insert_job(connection, "aaaaaaaaaaaa")
        job_rows.insert_group(connection, "aaaaaaaaaaaa", 1, {1: "pending", 2: "completed"})
        assert queries.is_open(connection, "aaaaaaaaaaaa")
        assert queries.is_open(connection, "aaaaaaaaaaaa", 1)
        assert not queries.is_open(connection, "aaaaaaaaaaaa", 2)
        with pytest.raises(UnknownJob, match="no subtask 3"):
            queries.is_open(connection, "aaaaaaaaaaaa", 3)
