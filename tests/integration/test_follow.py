"""Following a job while its rows change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert

from orchestrator.access.follow import Update, follow
from orchestrator.errors import DatabaseUnavailable
from orchestrator.state import tables
from orchestrator.state.engine import create_engine
from orchestrator.state.events import record_event
from tests.support import job_rows
from tests.support.services import PostgresService
from tests.support.waiting import wait_until

JOB = "aaaaaaaaaaaa"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    with engine.begin() as connection:
        job_rows.insert_job(connection, JOB)
        job_rows.insert_group(connection, JOB, 1, {1: "in_progress"})
    yield engine
    engine.dispose()


class Follower:
    """Follows in a thread and keeps what it saw."""

    def __init__(self, engine: Engine, **options: object) -> None:
        self.updates: list[Update] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(engine, options), daemon=True)
        self._thread.start()

    def _run(self, engine: Engine, options: dict[str, object]) -> None:
        try:
            for update in follow(engine, JOB, with_lines=True, **options):  # type: ignore[arg-type]
                self.updates.append(update)
        except BaseException as error:
            self.error = error

    @property
    def events(self) -> list[str]:
        return [event.name for update in self.updates for event in update.events]

    @property
    def problems(self) -> list[str]:
        return [update.problem for update in self.updates if update.problem]

    def wait_for_the_end(self) -> None:
        wait_until(lambda: not self._thread.is_alive(), "the follower has ended")


def test_every_event_comes_once_and_the_final_state_last(engine: Engine) -> None:
    follower = Follower(engine)
    for number in range(20):
        with engine.begin() as connection:
            record_event(connection, f"test.{number}", JOB)
    wait_until(lambda: len(follower.events) == 20, "all events were seen")
    with engine.begin() as connection:
        record_event(connection, "test.end", JOB)
        job_rows.finish_job(connection, JOB, "completed")
    follower.wait_for_the_end()
    assert follower.events == [*(f"test.{number}" for number in range(20)), "test.end"]
    last = follower.updates[-1].job
    assert last is not None
    assert last.status == "completed"


def test_an_event_that_is_committed_late_is_not_lost(engine: Engine) -> None:
    follower = Follower(engine)
    with engine.begin() as slow:
        record_event(slow, "test.late", JOB)
        with engine.begin() as quick:
            record_event(quick, "test.early", JOB)
        wait_until(lambda: follower.events == ["test.early"], "the event with the greater id was seen")
    wait_until(lambda: follower.events == ["test.early", "test.late"], "the late one was seen too")
    with engine.begin() as connection:
        job_rows.finish_job(connection, JOB, "failed")
    follower.wait_for_the_end()
    assert follower.events == ["test.early", "test.late"]


def test_what_happened_before_can_be_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(tables.events).values(id=10, job_id=JOB, name="test.before"))
        connection.execute(insert(tables.events).values(id=11, job_id=JOB, name="test.after"))
        job_rows.finish_job(connection, JOB, "completed")
    follower = Follower(engine, after_event=10)
    follower.wait_for_the_end()
    assert follower.events == ["test.after"]


def test_the_last_line_of_what_runs_is_shown(engine: Engine) -> None:
    follower = Follower(engine)
    with engine.begin() as connection:
        attempt = job_rows.insert_attempt(connection, JOB, 1)
        job_rows.write_lines(connection, JOB, 1, attempt, 1, "first", "\x1b[31msecond\x1b[0m", "  ")
    wait_until(lambda: follower.updates and follower.updates[-1].last_lines == {1: "second"}, "the last line was seen")
    with engine.begin() as connection:
        job_rows.finish_job(connection, JOB, "completed")
    follower.wait_for_the_end()


def test_a_database_that_restarts_is_found_again(engine: Engine, postgres: PostgresService) -> None:
    follower = Follower(engine)
    with engine.begin() as connection:
        record_event(connection, "test.before", JOB)
    wait_until(lambda: follower.events == ["test.before"], "the first event was seen")
    postgres.stop()
    wait_until(lambda: follower.problems, "the loss was told")
    assert "Trying again for " in follower.problems[0]
    postgres.start()
    with engine.begin() as connection:
        record_event(connection, "test.after", JOB)
        job_rows.finish_job(connection, JOB, "completed")
    follower.wait_for_the_end()
    assert follower.error is None
    assert follower.events == ["test.before", "test.after"]


def test_a_database_that_stays_away_is_given_up(engine: Engine, postgres: PostgresService) -> None:
    follower = Follower(engine, grace_seconds=0.0)
    wait_until(lambda: follower.updates, "the job was read")
    postgres.stop()
    follower.wait_for_the_end()
    assert isinstance(follower.error, DatabaseUnavailable)
