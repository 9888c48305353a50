"""Messages on their way to Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.state import outbox
from tests.support.fleet import TestFleet
from tests.support.services import RedisService

pytestmark = pytest.mark.stack

SUBTASKS = 50


def _job(fleet: TestFleet) -> str:
    nothing = [{"subtask_id": n, "title": "Nothing", "parallel_group": 1} for n in range(1, SUBTASKS + 1)]
    plan = {"title": "Many", "max_parallel_agents": SUBTASKS, "defaults": {"agent": "no-op"}, "subtasks": nothing}
    return fleet.submit(plan)


def _due(fleet: TestFleet) -> list[outbox.Message]:
    with fleet.client.engine.connect() as connection:
        return outbox.due(connection)


def test_messages_of_one_transaction_go_out_together(fleet: TestFleet, redis_server: RedisService) -> None:
    job_id = _job(fleet)
    with redis.Redis.from_url(redis_server.client_url, decode_responses=True) as client:
        before: dict[str, Any] = client.info("stats")
        start_job(fleet.client, job_id)
        after: dict[str, Any] = client.info("stats")
        assert client.llen("agents") == SUBTASKS
    # One by one each would cost two: the message, and the event that Flower shows.
    assert after["total_reads_processed"] - before["total_reads_processed"] < SUBTASKS
    assert _due(fleet) == []


def test_what_could_not_be_sent_stays_due(fleet: TestFleet, redis_server: RedisService) -> None:
    job_id = _job(fleet)
    start_job(fleet.client, job_id)
    with fleet.client.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outbox SET due_at = clock_timestamp() - interval '1 second'")
    messages = _due(fleet)
    assert len(messages) == SUBTASKS
    redis_server.stop()
    publish = {"engine": fleet.client.engine, "app": fleet.client.app, "republish_seconds": 30.0}
    assert outbox.publish(messages=messages, **publish) == 0
    assert len(_due(fleet)) == SUBTASKS
    redis_server.start()
    assert outbox.publish(messages=messages, **publish) == SUBTASKS
    assert _due(fleet) == []


def test_a_message_that_was_taken_is_noted_nowhere(fleet: TestFleet, redis_server: RedisService) -> None:
    """Its outbox row owes it. A note in Redis would cost four writes a message, and bring it again when the time is over."""
    with redis.Redis.from_url(redis_server.client_url, decode_responses=True) as client:
        client.config_resetstat()
        fleet.start_dispatcher()
        fleet.start_worker()
        assert fleet.wait_for_end(_job(fleet))["status"] == "completed"
        used = set(client.info("commandstats"))
    assert "cmdstat_brpop" in used
    assert not used & {"cmdstat_hdel", "cmdstat_zrem"}
