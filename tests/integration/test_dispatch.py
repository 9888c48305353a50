"""Who runs when, and where."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.state.transitions import jobs
from tests.support.fleet import TestFleet
from tests.support.repositories import shell
from tests.support.services import RedisService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


def test_the_longest_estimate_starts_first(fleet: TestFleet) -> None:
    fleet.start_dispatcher()
    fleet.start_worker()
    minutes = {1: 5, 2: 50, 3: 0, 4: 20}
    job_id = fleet.submit(
        {
            "title": "Order",
            "max_parallel_agents": 1,
            "subtasks": [shell(n, "true", estimated_duration_minutes=m) for n, m in minutes.items()],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    rows = fleet.rows("SELECT subtask_id FROM attempts WHERE job_id = :id ORDER BY started_at", id=job_id)
    assert [row["subtask_id"] for row in rows] == [2, 4, 1, 3]


def test_a_subtask_runs_only_where_its_needs_are_met(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    fleet.start_worker("plain")
    job_id = fleet.submit(
        {
            "title": "Needs",
            "subtasks": [shell(1, "true", requires=["large", "gpu"]), shell(2, "true"), shell(3, "true", group=2)],
        }
    )
    wait_until(lambda: fleet.subtasks(job_id)[2]["status"] == "completed", "the plain one is done")
    assert fleet.subtasks(job_id)[1]["status"] == "pending"
    fleet.start_worker("able", capabilities=["gpu", "large", "fast"])
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    (row,) = fleet.rows("SELECT worker FROM attempts WHERE job_id = :id AND subtask_id = 1", id=job_id)
    assert row["worker"] == "able@test"


def test_places_are_never_given_out_twice_however_many_release_at_once(fleet: TestFleet) -> None:
    """Twenty transactions race for three places; no process of the fleet runs."""
    job_id = fleet.submit(
        {"title": "Race", "max_parallel_agents": 3, "subtasks": [shell(n, "true") for n in range(1, 21)]}
    )
    start_job(fleet.client, job_id)
    with fleet.client.engine.begin() as connection:
        connection.execute(text("UPDATE subtasks SET released_at = NULL WHERE job_id = :id"), {"id": job_id})
    released: list[int] = []

    def ask() -> None:
        with fleet.client.engine.begin() as connection:
            jobs.lock_job(connection, job_id)
            released.append(len(jobs.release(connection, job_id)))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(released) == [0] * 19 + [3]
    assert len(fleet.rows("SELECT 1 FROM subtasks WHERE job_id = :id AND released_at IS NOT NULL", id=job_id)) == 3


def test_flushed_messages_come_again_and_the_chord_counts_them(fleet: TestFleet, redis_server: RedisService) -> None:
    """What was published and lost before anybody answered is published again, with the same ids."""
    job_id = fleet.submit({"title": "Vanished", "subtasks": [shell(1, "true"), shell(2, "true")]})
    start_job(fleet.client, job_id)
    redis_server.flush()
    fleet.start_dispatcher()
    fleet.start_worker()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert len(fleet.rows("SELECT 1 FROM attempts WHERE job_id = :id", id=job_id)) == 2


def test_the_net_leaves_a_fresh_message_to_whoever_released_it(fleet: TestFleet) -> None:
    """A copy would cost as much as the message; one that nobody has sent a second later is sent."""
    job_id = fleet.submit({"title": "Fresh", "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    reconciler = Reconciler(fleet.client)

    def due_since(interval: str) -> list[str]:
        with fleet.client.engine.begin() as connection:
            connection.execute(
                text("UPDATE outbox SET due_at = clock_timestamp() - CAST(:interval AS interval)"),
                {"interval": interval},
            )
        return [finding.kind for finding in reconciler.tick()]

    assert due_since("0 s") == []
    assert due_since("2 s") == ["message"]
    (row,) = fleet.rows("SELECT publish_count FROM outbox WHERE job_id = :id AND subtask_id = 1", id=job_id)
    assert row["publish_count"] == 2
    reconciler.stop()


def test_a_running_job_without_any_group_under_way_gets_its_next_one(fleet: TestFleet) -> None:
    """No transaction leaves one like that; the net finds it all the same, once."""
    job_id = fleet.submit({"title": "Idle", "subtasks": [shell(1, "true")]})
    with fleet.client.engine.begin() as connection:
        jobs.lock_job(connection, job_id)
        assert jobs.start_job(connection, job_id)  # half of what `dispatcher.start_job` does
    reconciler = Reconciler(fleet.client)
    assert [finding.kind for finding in reconciler.tick()] == ["group"]
    assert reconciler.tick() == []
    assert len(fleet.rows("SELECT 1 FROM group_runs WHERE job_id = :id", id=job_id)) == 1
    fleet.start_worker()
    fleet.start_dispatcher()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    reconciler.stop()
