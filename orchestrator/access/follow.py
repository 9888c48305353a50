"""Follow a job until it is final: one loop for `run`, `watch`, `submit --wait`, `retry --wait` and `logs -f`.

The loop reads when the database says that something happened (LISTEN), else once a second; never more often than every
quarter of a second, so that a busy job costs its watchers the same as a quiet one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import text

from orchestrator.errors import DatabaseUnavailable
from orchestrator.state.engine import translated
from orchestrator.state.queries import events_after, job_view, latest_chunks
from orchestrator.state.views import EventView, JobView
from orchestrator.text import duration, first_line

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

READ_AT_MOST_EVERY_SECONDS: Final = 0.25
READ_AT_LEAST_EVERY_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = 1.0
LOOK_BACK_IDS: Final = 1000
"""Event ids are given out before their transactions commit; how far behind the newest a late one is still found."""
EVENTS_AT_ONCE: Final = 5000
CHANNELS: Final = ("orchestrator_events", "orchestrator_logs")


@dataclass(frozen=True)
class Update:
    """What a view shows next. `problem` says why nothing could be read; the job is as it was last seen then."""

    job: JobView | None = None
    events: tuple[EventView, ...] = ()
    last_lines: Mapping[int, str] = field(default_factory=dict)
    """The newest output line of each subtask that runs, by its id."""
    problem: str | None = None


@dataclass(frozen=True)
class Problem:
    """Nothing could be read, and why; it is being tried again."""

    words: str


def follow(
    engine: Engine,
    job_id: str,
    *,
    after_event: int = 0,
    with_lines: bool = False,
    grace_seconds: float = 600.0,
    hurry: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """Updates until the job is final; the last one shows it so, and every event has been handed on once by then.

    Errors, `grace_seconds` and `hurry`: see `readings`.
    """
    reader = _Reader(engine, job_id, after_event, with_lines)
    for found in readings(engine, job_id, reader.read, grace_seconds=grace_seconds, hurry=hurry):
        yield Update(problem=found.words) if isinstance(found, Problem) else found


def readings(
    engine: Engine,
    job_id: str,
    read: Callable[[], tuple[T, bool]],
    *,
    grace_seconds: float,
    hurry: Callable[[], bool] = lambda: False,
) -> Iterator[T | Problem]:
    """What `read` finds, each time that there may be news of the job, until `read` says that this was the last.

    A database that is lost is reported as a `Problem` and tried again, for `grace_seconds`; then `DatabaseUnavailable`
    is raised. `hurry` is asked between waits: while it is true the next reading comes at once.
    """
    lost_at: float | None = None
    while True:
        try:
            with translated(), _listening(engine) as channel:
                while True:
                    began = time.monotonic()
                    found, is_last = read()
                    lost_at = None
                    yield found
                    if is_last:
                        return
                    # A reading that is itself slow (thousands of subtasks) leaves the database alone for longer.
                    _rest(began + max(READ_AT_MOST_EVERY_SECONDS, 4 * (time.monotonic() - began)), hurry)
                    _wait_for_news(channel, began + READ_AT_LEAST_EVERY_SECONDS, job_id, hurry)
        except DatabaseUnavailable as error:
            lost_at = lost_at or time.monotonic()
            away = time.monotonic() - lost_at
            if away > grace_seconds:
                raise
            yield Problem(f"{error.message} Trying again for {duration(grace_seconds - away)}.")
            _rest(time.monotonic() + RECONNECT_SECONDS, hurry)


class _Reader:
    """What was handed on already, kept over a lost connection."""

    def __init__(self, engine: Engine, job_id: str, after_event: int, with_lines: bool) -> None:
        self._engine = engine
        self._job_id = job_id
        self._floor = after_event
        self._seen: set[int] = set()
        self._with_lines = with_lines
        self._chunks: dict[int, int] = {}
        self._lines: dict[int, str] = {}

    def read(self) -> tuple[Update, bool]:
        """The next update, and whether it is the last."""
        # The state first: a final state was written together with its last event, so the events below include it.
        job = job_view(self._engine, self._job_id)
        with self._engine.connect() as connection:
            found = events_after(connection, self._job_id, self._floor, limit=EVENTS_AT_ONCE)
            if self._with_lines and not job.is_final:
                self._read_lines(connection)
        fresh = tuple(event for event in found if event.id not in self._seen)
        self._seen.update(event.id for event in fresh)
        if self._seen:
            self._floor = max(self._floor, max(self._seen) - LOOK_BACK_IDS)
            self._seen = {event_id for event_id in self._seen if event_id > self._floor}
        running = {subtask.subtask_id for subtask in job.subtasks if subtask.status == "in_progress"}
        self._lines = {subtask_id: line for subtask_id, line in self._lines.items() if subtask_id in running}
        return Update(job, fresh, dict(self._lines)), job.is_final and len(found) < EVENTS_AT_ONCE

    def _read_lines(self, connection: Connection) -> None:
        from orchestrator.state.log_chunks import decode_chunk

        for chunk in latest_chunks(connection, self._job_id, self._chunks):
            self._chunks[chunk.attempt_id] = chunk.sequence
            told = [said for line in decode_chunk(chunk.content) if (said := first_line(line.text))]
            if told:
                self._lines[chunk.subtask_id] = told[-1]


@contextmanager
def _listening(engine: Engine) -> Iterator[psycopg.Connection]:
    """A connection of its own that hears the channels; closed for good afterwards, never given back to the pool."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        connection.detach()
        for channel in CHANNELS:
            connection.execute(text(f"LISTEN {channel}"))
        yield driver


def _wait_for_news(channel: psycopg.Connection, until: float, job_id: str, hurry: Callable[[], bool]) -> None:
    """Return at news of this job, at `until` (monotonic), or when there is hurry."""
    while not hurry() and (left := until - time.monotonic()) > 0:
        slice_seconds = min(left, READ_AT_MOST_EVERY_SECONDS)
        if any(job_id in news.payload for news in channel.notifies(timeout=slice_seconds, stop_after=1)):
            return


def _rest(until: float, hurry: Callable[[], bool]) -> None:
    while not hurry() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
