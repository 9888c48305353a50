"""What Celery 5.7 with Redis was measured to do wrong with long tasks, and that none of it happens here.

trap                                                             tested by
a worker exits when Redis goes away in mid-task                  `test_redis_goes_away_while_an_agent_works`
a dropped connection delivers what runs once more                `test_a_dropped_connection_starts_nothing_twice`
the visibility timeout starts a second copy of a long task       `test_a_running_agent_leaves_nothing_in_redis_that_could_come_back`
a header that ends while Redis is down is never counted          `test_redis_goes_away_while_an_agent_works`
a header that raises, is killed or revoked: no body              `test_a_header_that_fails_wakes_its_merge`; killed: test_lost_processes
a header dies between its result and its count: no body          `test_a_header_that_is_killed_before_it_counts`
the body runs three times when its worker is killed              `test_a_body_that_comes_again_merges_nothing`; in the merge: test_lost_processes
FLUSHALL or a lost log: no body                                  test_lost_processes, test_dispatch
`result_expires` shorter than the header: no body                `test_the_count_outlives_any_header`
a copy of a header counts twice                                  `test_copies_of_a_header_wake_nobody_early`
a header's message carries all later chords                      `test_a_message_is_small_whatever_the_size_of_the_plan`
results go through Redis                                         `test_no_result_goes_through_redis`
a chord of one gives its body a scalar                           `test_the_body_takes_nothing_from_its_header`
after a blackhole work resumes late                              `test_a_silent_redis_is_given_up_after_seconds`
`worker_deduplicate_successful_tasks` hangs chords               `test_what_is_not_switched_on`
revokes live in a worker's memory                                `test_a_cancelled_job_stays_so_for_a_worker_that_never_heard_of_it`
`shadow` becomes a label of a metric                             `test_a_message_is_small_whatever_the_size_of_the_plan`
prefork costs 25 MiB a slot                                      `test_other_pools_than_threads_are_refused`
threads: TERM waits, kill -9 leaves the agent behind             test_lost_processes, test_guard
threads: a freed slot is noticed a second late                   `test_a_worker_hoards_nothing`, and (b) of `make bench`
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
from celery import signature

from orchestrator.celery_app import CHORD_SECONDS, SOCKET_SECONDS
from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.steering import cancel_job
from orchestrator.fault_points import FOLDER_VARIABLE
from orchestrator.task_names import AGENTS_QUEUE
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell
from tests.support.services import PostgresService, RedisService, Services
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

PATIENT = {"body_grace_seconds": 120.0, "republish_seconds": 120.0}
"""With these the net leaves everything to Celery for longer than a test takes."""


SLOTS = 2


@dataclass(frozen=True)
class Patient:
    fleet: TestFleet
    redis: RedisService

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.client_url)

    def unacknowledged(self) -> int:
        with self.client() as client:
            return int(client.hlen("unacked")) + int(client.zcard("unacked_index"))


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """A dispatcher and a worker on servers of their own."""
    servers = Services()
    one = open_fleet(servers.postgres.new_database(), servers.redis.url, tmp_path_factory.mktemp("patient"), **PATIENT)
    one.start_dispatcher()
    one.start_worker(slots=SLOTS)
    yield Patient(one, servers.redis)
    one.close()
    servers.close()


def gated(gate: Path, begun: Path) -> str:
    """A command that ends when the gate is there."""
    return f"touch {begun}; until test -e {gate}; do sleep 0.05; done"


def merges(fleet: TestFleet, job_id: str) -> list[str]:
    rows = fleet.rows("SELECT woken_by FROM group_runs WHERE job_id = :id ORDER BY group_number", id=job_id)
    return [row["woken_by"] for row in rows]


def attempts(fleet: TestFleet, job_id: str) -> list[str]:
    rows = fleet.rows("SELECT status FROM attempts WHERE job_id = :id ORDER BY subtask_id, number", id=job_id)
    return [row["status"] for row in rows]


def messages(fleet: TestFleet, job_id: str) -> list[dict[str, Any]]:
    rows = fleet.rows("SELECT message FROM outbox WHERE job_id = :id AND subtask_id IS NOT NULL ORDER BY id", id=job_id)
    return [row["message"] for row in rows]


def test_redis_goes_away_while_an_agent_works(patient: Patient, tmp_path: Path) -> None:
    """The worker lives on, the agent works to its end, and the header is counted when Redis is back: by Celery alone."""
    gate, begun, fleet = tmp_path / "gate", tmp_path / "begun", patient.fleet
    job_id = fleet.submit({"title": "Away", "subtasks": [shell(1, gated(gate, begun))]})
    wait_until(begun.exists, "the agent runs")
    patient.redis.stop()
    gate.touch()
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "completed", "its end is recorded")
    patient.redis.start()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert fleet.processes["worker"].poll() is None
    assert (attempts(fleet, job_id), merges(fleet, job_id)) == (["completed"], ["callback"])


def test_a_dropped_connection_starts_nothing_twice(patient: Patient, tmp_path: Path) -> None:
    gate, begun, diary = tmp_path / "gate", tmp_path / "begun", tmp_path / "diary"
    fleet = patient.fleet
    job_id = fleet.submit({"title": "Cut", "subtasks": [shell(1, f"echo x >> {diary}; {gated(gate, begun)}")]})
    wait_until(begun.exists, "the agent runs")
    with patient.client() as client:
        assert client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") > 0
    second = fleet.submit({"title": "Next", "subtasks": [shell(1, "true")]})
    fleet.wait_for_end(second)  # the worker is connected again and takes messages
    gate.touch()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert diary.read_text() == "x\n"


def test_a_running_agent_leaves_nothing_in_redis_that_could_come_back(patient: Patient, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    job_id = patient.fleet.submit({"title": "Long", "subtasks": [shell(1, gated(gate, begun))]})
    wait_until(begun.exists, "the agent runs")
    wait_until(lambda: patient.unacknowledged() == 0, "every message is acknowledged while its task runs")
    gate.touch()
    patient.fleet.wait_for_end(job_id)


def test_a_worker_hoards_nothing(patient: Patient, tmp_path: Path) -> None:
    gate, begun, fleet = tmp_path / "gate", tmp_path / "begun", patient.fleet
    job_id = fleet.submit({"title": "Queue", "subtasks": [shell(n, gated(gate, begun)) for n in range(1, 6)]})
    in_progress = "SELECT 1 FROM subtasks WHERE job_id = :id AND status = 'in_progress'"
    wait_until(lambda: len(fleet.rows(in_progress, id=job_id)) == SLOTS, "both slots are taken")
    with patient.client() as client:
        wait_until(lambda: client.llen(AGENTS_QUEUE) == 5 - SLOTS, "what can't run is there for any worker")
    gate.touch()
    assert fleet.wait_for_end(job_id)["status"] == "completed"


def test_a_header_that_fails_wakes_its_merge(patient: Patient) -> None:
    """To Celery a header succeeds however its agent ended."""
    fleet = patient.fleet
    broken = {**shell(2, ""), "agent": {"name": "scripted", "script": [{"fail": "no"}]}}
    job_id = fleet.submit(
        {
            "title": "Failures",
            "on_failure": "continue",
            "max_retries": 0,
            "subtasks": [shell(1, "exit 7"), broken, shell(3, "true"), shell(4, "true", group=2)],
        }
    )
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    assert attempts(fleet, job_id) == ["failed", "failed", "completed", "completed"]
    assert merges(fleet, job_id) == ["callback", "callback"]


def test_no_result_goes_through_redis(patient: Patient) -> None:
    loud = "head -c 300000 /dev/zero | tr '\\0' x; echo"
    job_id = patient.fleet.submit({"title": "Loud", "subtasks": [shell(1, loud), shell(2, loud)]})
    assert patient.fleet.wait_for_end(job_id)["status"] == "completed"
    with patient.client() as client:
        sizes = {key: client.memory_usage(key) for key in client.scan_iter("*celery-task-meta*")}
    assert all(size < 2_000 for size in sizes.values()), sizes


def test_a_header_that_is_killed_before_it_counts(fleet: TestFleet, tmp_path: Path) -> None:
    """Its subtask is final in SQL, the chord waits for ever: the net merges."""
    points = tmp_path / "points"
    points.mkdir()
    (points / "after_record_before_return").write_text("kill")
    fleet.start_dispatcher()
    worker = fleet.start_worker(**{FOLDER_VARIABLE: str(points)})
    job_id = fleet.submit({"title": "Uncounted", "subtasks": [shell(1, "true")]})
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert worker.wait(timeout=30) == -signal.SIGKILL
    assert (attempts(fleet, job_id), merges(fleet, job_id)) == (["completed"], ["reconciler"])


def test_a_body_that_comes_again_merges_nothing(shared_fleet: TestFleet, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    job_id = shared_fleet.submit(
        {"title": "Bodies", "subtasks": [shell(1, "true"), shell(2, gated(gate, begun), group=2)]}
    )
    wait_until(begun.exists, "the second group is at work")
    body = messages(shared_fleet, job_id)[0]["options"]["chord"]
    for number in (1, 2, 1, 2):  # too late, too early
        signature({**body, "args": [job_id, number]}, app=shared_fleet.client.app).apply_async()
    gate.touch()
    assert shared_fleet.wait_for_end(job_id)["status"] == "completed"
    again = shared_fleet.submit({"title": "After", "subtasks": [shell(1, "true")]})
    shared_fleet.wait_for_end(again)  # whatever lay in the queue before it has been met
    merging = "SELECT group_number FROM events WHERE job_id = :id AND name = 'group.merging' ORDER BY id"
    assert [row["group_number"] for row in shared_fleet.rows(merging, id=job_id)] == [1, 2]


def test_copies_of_a_header_wake_nobody_early(shared_fleet: TestFleet, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    job_id = shared_fleet.submit({"title": "Copies", "subtasks": [shell(1, gated(gate, begun)), shell(2, "sleep 0.5")]})
    stored = wait_until(lambda: messages(shared_fleet, job_id), "the group is dispatched")
    wait_until(lambda: shared_fleet.subtasks(job_id)[2]["status"] == "completed", "one of two has ended")
    wait_until(begun.exists, "the other one runs")
    for _ in range(5):
        for message in stored:
            signature(dict(message), app=shared_fleet.client.app).apply_async(ignore_result=True)
    after = shared_fleet.submit({"title": "After", "subtasks": [shell(1, "true")]})
    shared_fleet.wait_for_end(after)
    (group,) = shared_fleet.rows("SELECT status FROM groups WHERE job_id = :id", id=job_id)
    assert group["status"] == "running"
    gate.touch()
    assert shared_fleet.wait_for_end(job_id)["status"] == "completed"
    assert (attempts(shared_fleet, job_id), merges(shared_fleet, job_id)) == (["completed"] * 2, ["callback"])


def test_a_message_is_small_whatever_the_size_of_the_plan(fleet: TestFleet) -> None:
    """Nothing of later groups, of the prompt or of a name that a metric would take for a label."""

    def first_message(groups: int) -> dict[str, Any]:
        many = [shell(n, "true", group=n, description="A long prompt. " * 400) for n in range(1, groups + 1)]
        job_id = fleet.submit({"title": "Large", "subtasks": many})
        start_job(fleet.client, job_id)
        (message,) = [message for message in messages(fleet, job_id) if message["args"][1] == 1]
        return message

    small, large = first_message(1), first_message(40)
    assert len(str(large)) == len(str(small)) < 2_000
    assert "shadow" not in large["options"]


def test_the_count_outlives_any_header(fleet: TestFleet, redis_server: RedisService) -> None:
    job_id = fleet.submit({"title": "Months", "subtasks": [shell(1, "true"), shell(2, "true")]})
    start_job(fleet.client, job_id)
    with redis.Redis.from_url(redis_server.client_url) as client:
        keys = [key for key in client.scan_iter("*") if b"taskset" in key or b"chord" in key]
        assert keys, "the chord's size is stored"
        assert all(client.ttl(key) in {-1, *range(CHORD_SECONDS - 60, CHORD_SECONDS + 1)} for key in keys)
    assert fleet.client.app.conf.result_expires >= CHORD_SECONDS


def test_the_body_takes_nothing_from_its_header(fleet: TestFleet) -> None:
    """So it does not matter that a chord of one would give it a scalar."""
    job_id = fleet.submit({"title": "One", "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    body = messages(fleet, job_id)[0]["options"]["chord"]
    assert (body["immutable"], body["args"]) == (True, [job_id, 1])


def test_a_silent_redis_is_given_up_after_seconds(fleet: TestFleet) -> None:
    app = fleet.client.app
    with app.connection_for_read() as connection:
        broker = connection.default_channel.client.connection_pool.connection_kwargs
    backend = app.backend.client.connection_pool.connection_kwargs
    for of in (broker, backend):
        assert (of["socket_timeout"], of["health_check_interval"]) == (SOCKET_SECONDS, 10)


def test_what_is_not_switched_on(fleet: TestFleet) -> None:
    conf = fleet.client.app.conf
    assert not conf.task_acks_late
    assert celery.VERSION >= (5, 7), "before it a copy of a header counted twice"
    assert not conf.worker_deduplicate_successful_tasks
    assert conf.result_backend_always_retry
    assert conf.task_ignore_result


def test_a_cancelled_job_stays_so_for_a_worker_that_never_heard_of_it(fleet: TestFleet, tmp_path: Path) -> None:
    """Its messages lie in Redis; the worker that meets them was started after the cancellation."""
    ran = tmp_path / "ran"
    job_id = fleet.submit({"title": "Cancelled", "subtasks": [shell(1, f"touch {ran}"), shell(2, f"touch {ran}")]})
    start_job(fleet.client, job_id)
    cancel_job(fleet.client, job_id)
    fleet.start_dispatcher()
    fleet.start_worker()
    after = fleet.submit({"title": "After", "subtasks": [shell(1, "true")]})
    fleet.wait_for_end(after)
    assert fleet.job(job_id)["status"] == "cancelled"
    assert attempts(fleet, job_id) == []
    assert not ran.exists()


@pytest.mark.parametrize(("words", "pool"), [(("-P", "prefork"), "prefork"), (("-Psolo",), "solo")])
def test_other_pools_than_threads_are_refused(
    words: tuple[str, ...], pool: str, postgres: PostgresService, redis_server: RedisService
) -> None:
    services = {"ORCHESTRATOR_DATABASE_URL": postgres.url, "ORCHESTRATOR_BROKER_URL": redis_server.url}
    started = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", *words],
        env={**os.environ, **services},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    said = [line for line in started.stderr.splitlines() if line.startswith("error: ")]
    assert said == [f"error: Workers and dispatchers use the pool threads, not {pool}. Leave out --pool."]
    assert "Traceback" not in started.stderr
