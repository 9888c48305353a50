"""A worker's slots are for agents: one that is done makes room while its end is recorded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.outcomes import Outcome
from orchestrator.state.transitions import claims, jobs
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import StopSignal
from tests.support.fleet import TestFleet
from tests.support.repositories import shell
from tests.support.services import PostgresService
from tests.support.waiting import wait_until
from workers.recording import Recorder, record

pytestmark = pytest.mark.stack


def test_the_next_agent_begins_while_an_end_waits_to_be_recorded(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker(slots=1)
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    held = fleet.submit({"title": "Held", "subtasks": [shell(1, f"until [ -e {gate} ]; do sleep 0.05; done")]})
    wait_until(lambda: fleet.subtasks(held)[1]["status"] == "in_progress", "the one slot is taken")
    other = fleet.submit({"title": "Other", "subtasks": [shell(1, f"touch {begun}; sleep 0.1")]})
    with fleet.client.engine.begin() as connection:
        assert jobs.lock_job(connection, held) is not None
        gate.touch()
        wait_until(begun.exists, "the other job's agent begins")
        assert fleet.subtasks(held)[1]["status"] == "in_progress", "nothing is recorded yet"
    assert {fleet.wait_for_end(job_id)["status"] for job_id in (held, other)} == {"completed"}


def test_agents_never_outnumber_the_slots(fleet: TestFleet) -> None:
    fleet.start_dispatcher()
    fleet.start_worker(slots=2)
    plan = {
        "title": "Many",
        "max_parallel_agents": 12,
        "defaults": {"agent": {"name": "no-op", "seconds": 0.05}},
        "subtasks": [{"subtask_id": n, "title": "Nothing", "parallel_group": 1} for n in range(1, 41)],
    }
    job_id = fleet.submit(plan)
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    (most,) = fleet.rows(
        """
        SELECT max((SELECT count(*) FROM attempts b WHERE b.job_id = a.job_id AND b.agent_started_at <= a.agent_started_at
                    AND a.agent_started_at < b.agent_started_at + make_interval(secs => b.agent_duration_seconds))) AS at_once
        FROM attempts a WHERE job_id = :id
        """,
        id=job_id,
    )
    assert most["at_once"] == 2


def test_an_end_that_waits_for_the_database_says_so_before_it_waits(
    fleet: TestFleet, postgres: PostgresService
) -> None:
    job_id = fleet.submit({"title": "Waiting", "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    (claim,) = claims.claim(
        fleet.client.engine, job_id, [claims.Wanted(1, None, "token")], worker="worker@test", lease_seconds=60.0
    )
    assert claim is not None
    waits = threading.Event()
    with StopSignal() as stop:
        arguments = (Recorder(fleet.client), claim, AttemptEnd(Outcome.COMPLETED), stop, waits.set)
        postgres.stop()
        recording = threading.Thread(target=record, args=arguments)
        recording.start()
        assert waits.wait(timeout=30), "its slot would be free for work that nobody can claim"
        postgres.start()
        recording.join(timeout=30)
        assert not recording.is_alive()
    assert fleet.subtasks(job_id)[1]["status"] == "completed"
