"""Transactions in one round trip, and many attempts at once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.steering import cancel_job
from orchestrator.errors import DatabaseUnavailable
from orchestrator.outcomes import Outcome
from orchestrator.retry_policy import Retry
from orchestrator.state.engine import create_engine
from orchestrator.state.one_trip import WITHOUT_DISK, in_one_trip
from orchestrator.state.transitions import claims, ends, jobs
from orchestrator.state.transitions.ends import AttemptEnd
from tests.support.fleet import TestFleet
from tests.support.services import PostgresService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

COUNT = text("SELECT count(*) AS seen FROM notes")
ADD = text("INSERT INTO notes VALUES (:number)")


@pytest.fixture
def notes(database: str) -> str:
    engine = create_engine(database)
    in_one_trip(engine, (text("CREATE TABLE notes (number integer PRIMARY KEY)"), {}))
    engine.dispose()
    return database


def test_all_statements_count_or_none(notes: str) -> None:
    engine = create_engine(notes)
    with pytest.raises(Exception, match="duplicate key"):
        in_one_trip(engine, (ADD, {"number": 1}), (ADD, {"number": 1}), (COUNT, {}))
    assert in_one_trip(engine, WITHOUT_DISK, (COUNT, {})) == [[], [{"seen": 0}]]
    assert in_one_trip(engine, (ADD, {"number": 1}), (COUNT, {})) == [[], [{"seen": 1}]]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def test_a_statement_after_a_lock_sees_what_was_committed_while_it_waited(notes: str) -> None:
    """What makes the window of places exact: the count is taken after the lock, not when the trip began."""
    engine = create_engine(notes)
    lock = text("LOCK TABLE notes IN EXCLUSIVE MODE")
    answers: list[int] = []
    with engine.begin() as holder:
        holder.execute(lock)
        waiter = threading.Thread(
            target=lambda: answers.append(in_one_trip(engine, (lock, {}), (COUNT, {}))[1][0]["seen"])
        )
        waiter.start()
        holder.execute(ADD, {"number": 1})
    waiter.join()
    assert answers == [1]
    engine.dispose()


def test_a_restarted_server_costs_no_error_and_a_stopped_one_is_said(postgres: PostgresService, notes: str) -> None:
    engine = create_engine(notes)
    in_one_trip(engine, (COUNT, {}))
    postgres.restart()
    assert in_one_trip(engine, (COUNT, {})) == [[{"seen": 0}]]
    postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        in_one_trip(engine, (COUNT, {}))
    engine.dispose()


def test_fifty_ends_at_once_never_wait_for_each_other_in_a_circle(fleet: TestFleet) -> None:
    """Claims, ends and marks of one job touch the same rows; before they were put in order, this job met deadlocks."""
    fleet.start_dispatcher()
    fleet.start_worker(slots=20)
    nothing = [{"subtask_id": n, "title": "Nothing", "parallel_group": 1 + n % 3} for n in range(1, 151)]
    job_id = fleet.submit(
        {"title": "Many", "max_parallel_agents": 50, "defaults": {"agent": "no-op"}, "subtasks": nothing}
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    attempts = fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job_id)
    assert [row["status"] for row in attempts] == ["completed"] * 150
    merged = fleet.rows("SELECT woken_by FROM group_runs WHERE job_id = :id", id=job_id)
    assert [row["woken_by"] for row in merged] == ["callback"] * 3
    (found,) = fleet.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert found["deadlocks"] == 0


def test_claims_and_ends_of_many_at_once_are_each_answered_for_itself(fleet: TestFleet) -> None:
    """Copies, a message of another chord and a lost lease come together with good ones; no process of the fleet runs."""
    engine = fleet.client.engine
    nothing = [{"subtask_id": n, "title": "Nothing", "parallel_group": 1} for n in range(1, 6)]
    job_id = fleet.submit(
        {"title": "Many", "max_parallel_agents": 4, "defaults": {"agent": "no-op"}, "subtasks": nothing}
    )
    start_job(fleet.client, job_id)
    wanted = [
        claims.Wanted(1, None, "one"),
        claims.Wanted(2, "of another chord", "two"),
        claims.Wanted(3, None, "three"),
        claims.Wanted(3, None, "a copy"),
        claims.Wanted(4, None, "four"),
        claims.Wanted(5, None, "not released"),
    ]
    given = claims.claim(engine, job_id, wanted, worker="w@test", lease_seconds=30)
    found = [(claim.subtask_id, claim.number) if claim else None for claim in given]
    assert [found[0], found[1], found[4], found[5]] == [(1, 1), None, (4, 1), None]
    assert sorted(found[2:4], key=bool) == [None, (3, 1)]
    (third,) = [claim for claim in given[2:4] if claim]
    ended = [
        ends.Ended(1, "one", AttemptEnd(Outcome.COMPLETED, result="\0", usage={"input": 5})),
        ends.Ended(3, third.lease_token, AttemptEnd(Outcome.FAILED, error="no"), retry=Retry(60.0), failure=True),
        ends.Ended(4, "somebody else's", AttemptEnd(Outcome.COMPLETED)),
    ]
    _, landed = in_one_trip(engine, jobs.lock_statement(job_id), ends.end_statement(job_id, ended))
    assert {row["lease_token"] for row in landed} == {"one", third.lease_token}
    states = {number: (row["status"], row["failures"]) for number, row in fleet.subtasks(job_id).items()}
    assert states == {
        1: ("completed", 0),
        2: ("pending", 0),
        3: ("pending", 1),
        4: ("in_progress", 0),
        5: ("pending", 0),
    }
    owed = fleet.rows("SELECT subtask_id FROM outbox WHERE job_id = :id ORDER BY subtask_id", id=job_id)
    assert [row["subtask_id"] for row in owed] == [2, 3, 4, 5]


def test_a_claim_and_an_end_find_a_subtask_by_its_key_in_a_job_that_was_just_submitted(fleet: TestFleet) -> None:
    """Before PostgreSQL has counted the table, any index looks as good as the key; one of them is read from end to end."""
    number, at_once = 600, 4
    nothing = [{"subtask_id": n, "title": "Nothing", "parallel_group": 1} for n in range(1, number + 1)]
    job_id = fleet.submit(
        {"title": "Many", "max_parallel_agents": number, "defaults": {"agent": "no-op"}, "subtasks": nothing}
    )
    start_job(fleet.client, job_id)
    engine = fleet.client.engine
    engine.dispose()  # a session that ends tells what it has read
    before = _entries_read(fleet)
    for first in range(1, number + 1, at_once):
        wanted = [claims.Wanted(n, None, f"token {n}") for n in range(first, first + at_once)]
        assert all(claims.claim(engine, job_id, wanted, worker="w@test", lease_seconds=30))
        ended = [ends.Ended(one.subtask_id, one.lease_token, AttemptEnd(Outcome.COMPLETED)) for one in wanted]
        in_one_trip(engine, jobs.lock_statement(job_id), ends.end_statement(job_id, ended))
    engine.dispose()
    wait_until(lambda: _entries_read(fleet) >= before + 2 * number, "what was read is counted")
    assert _entries_read(fleet) - before < 20 * number


def _entries_read(fleet: TestFleet) -> int:
    (found,) = fleet.rows("SELECT sum(idx_tup_read) AS number FROM pg_stat_user_indexes WHERE relname = 'subtasks'")
    return int(found["number"])


def test_an_in_process_agent_hears_of_its_time_limit_and_of_a_cancellation(fleet: TestFleet) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    wait = {"title": "Wait", "agent": {"name": "no-op", "seconds": 600}, "parallel_group": 1, "max_retries": 0}
    job_id = fleet.submit(
        {
            "title": "Waiting",
            "subtasks": [{"subtask_id": 1, "timeout": "1s", **wait}, {"subtask_id": 2, **wait}],
        }
    )
    wait_until(lambda: fleet.subtasks(job_id)[1]["finished_at"], "the first one is out of time")
    assert fleet.subtasks(job_id)[1]["outcome"] == "timeout"
    wait_until(lambda: fleet.subtasks(job_id)[2]["status"] == "in_progress", "the second one waits")
    cancel_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id)["status"] == "cancelled"
    assert fleet.subtasks(job_id)[2]["outcome"] == "cancelled"
