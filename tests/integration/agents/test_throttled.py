"""Eight real programs at once and eight that wait, when the model turns one of them away: the model's own record of its
requests shows the pause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agents.programs import CLAUDE, CODEX, Program, worker_environment
from tests.support.fleet import TestFleet, open_fleet
from tests.support.model_server.script import Fault, Script, say, shell
from tests.support.model_server.server import ModelServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.agents, pytest.mark.timeout(400)]

AT_ONCE = 8
CLOSED_SECONDS = 6.0


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture
def fleet(model: ModelServer, database: str, broker: str, tmp_path: Path) -> Iterator[TestFleet]:
    one = open_fleet(database, broker, tmp_path, lease_seconds=10.0, retry_initial_seconds=CLOSED_SECONDS)
    one.base_environment = worker_environment(model.url, tmp_path / "home")
    one.start_dispatcher()
    one.start_worker("first", slots=AT_ONCE)
    one.start_worker("second", slots=AT_ONCE)
    yield one
    one.close()


def scripts_of(folder: Path, fault: Fault) -> list[Script]:
    """The first is turned away once the other seven are at work; those go on until the gate is open."""
    (folder / "ready").mkdir()
    met = f"for i in $(seq 600); do [ $(ls {folder}/ready | wc -l) -ge {AT_ONCE - 1} ] && break; sleep 0.1; done"
    work = f"touch {folder}/ready/$$; for i in $(seq 600); do [ -e {folder}/gate ] && break; sleep 0.1; done"
    done = say("Done.")
    return [
        Script([shell(met), done], [fault]),
        *(Script([shell(work), done]) for _ in range(AT_ONCE - 1)),
        *(Script([shell("true"), done]) for _ in range(AT_ONCE)),
    ]


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        (CLAUDE, Fault(step=1, status=429, times=1, retry_after_seconds=int(CLOSED_SECONDS))),
        (CODEX, Fault(step=1, status=429, times=1)),  # with a Retry-After it would wait by itself, without a word
    ],
    ids=["claude", "codex"],
)
def test_the_model_sees_nobody_begin_while_it_is_closed(
    program: Program, fault: Fault, fleet: TestFleet, model: ModelServer, tmp_path: Path
) -> None:
    program.require()
    scripts = scripts_of(tmp_path, fault)
    subtasks = [
        {
            "subtask_id": number,
            "title": f"Part {number}",
            "parallel_group": 1,
            "description": script.prompt,
            "estimated_duration_minutes": 100 - number,  # the first eight first
        }
        for number, script in enumerate(scripts, 1)
    ]
    job_id = fleet.submit(
        {
            "title": "Throttled",
            "max_parallel_agents": AT_ONCE,
            "max_retries": 0,
            "defaults": {"agent": program.agent(), "expect_changes": False},
            "subtasks": subtasks,
        }
    )
    wait_until(lambda: throttles(fleet, job_id), "the fleet has heard of it", timeout_seconds=120)
    (tmp_path / "gate").touch()
    job = fleet.wait_for_end(job_id, timeout_seconds=200)
    assert job["status"] == "completed", fleet.describe(job_id)
    ((closed, opened),) = throttles(fleet, job_id)
    assert opened - closed > CLOSED_SECONDS - 1
    first_requests = {number: min(model.request_times(script)) for number, script in enumerate(scripts, 1)}
    # Codex waits for a tool no longer than it likes, so one of the seven may have made room before the closing: whose
    # claim was given before it may be on the point of starting when it comes.
    later = [row for row in starts(fleet, job_id) if row["claimed_at"] > closed]
    assert {row["subtask_id"] for row in later} - {1}, "some begin after it was closed"
    assert min(row["at"] for row in later) > opened
    assert min(first_requests[row["subtask_id"]] for row in later if row["subtask_id"] != 1) > opened
    rows = fleet.subtasks(job_id)
    assert [rows[number]["attempts"] for number in range(2, AT_ONCE + 1)] == [1] * (AT_ONCE - 1), "they were left alone"
    assert {row["failures"] for row in rows.values()} == {0}
    assert model.faults(scripts[0]) == 1


def starts(fleet: TestFleet, job_id: str) -> list[dict[str, Any]]:
    """When each attempt was claimed, and its program started. One may have been turned back before it began."""
    return fleet.rows(
        "SELECT subtask_id, extract(epoch FROM started_at)::float AS claimed_at,"
        " extract(epoch FROM agent_started_at)::float AS at"
        " FROM attempts WHERE job_id = :id AND agent_started_at IS NOT NULL",
        id=job_id,
    )


def throttles(fleet: TestFleet, job_id: str) -> list[tuple[float, float]]:
    """From when until when the account was closed, each time."""
    rows = fleet.rows(
        "SELECT extract(epoch FROM at)::float AS at, data FROM events WHERE job_id = :id AND name = 'provider.throttled'",
        id=job_id,
    )
    return [(row["at"], row["at"] + row["data"]["closed_seconds"]) for row in rows]
