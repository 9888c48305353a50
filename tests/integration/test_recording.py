"""An end of an attempt is recorded whatever its program has told, and a deadline holds where nobody is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.outcomes import Outcome
from orchestrator.state.transitions import claims
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import StopSignal
from tests.support.fleet import TestFleet
from tests.support.processes import processes_with
from tests.support.repositories import new_repository, shell
from tests.support.services import PostgresService
from tests.support.waiting import wait_until
from workers.recording import Recorder, record

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED])
@pytest.mark.parametrize("figures", [{"cost_usd": "dear"}, {"usage": {"input_tokens": {1, 2}}}])
def test_work_counts_though_its_figures_can_not_be_stored(
    fleet: TestFleet, outcome: Outcome, figures: dict[str, Any]
) -> None:
    job_id = fleet.submit({"title": "Strange", "max_retries": 0, "subtasks": [shell(1, "true")]})
    start_job(fleet.client, job_id)
    (claim,) = claims.claim(
        fleet.client.engine, job_id, [claims.Wanted(1, None, "token")], worker="worker@test", lease_seconds=60.0
    )
    assert claim is not None
    end = AttemptEnd(outcome, error="why" if outcome is Outcome.FAILED else None, commit="c0ffee", **figures)
    with StopSignal() as stop:
        assert record(Recorder(fleet.client), claim, end, stop)
    subtask = fleet.subtasks(job_id)[1]
    assert (subtask["status"], subtask["outcome"]) == (str(outcome), str(outcome))
    assert subtask["commit"] == ("c0ffee" if outcome is Outcome.COMPLETED else None)


def test_a_check_ends_at_the_jobs_deadline_also_while_the_database_is_away(
    fleet: TestFleet, postgres: PostgresService, tmp_path: Path
) -> None:
    sleeper, begun = "sleep 987.6521", tmp_path / "begun"
    fleet.start_dispatcher()
    fleet.start_worker()
    wait_until(lambda: "worker@test ready" in (tmp_path / "worker.log").read_text(), "the worker is ready")
    subtask = shell(1, "true", check=f"touch {begun}; {sleeper}")
    job_id = fleet.submit({"title": "Late", "deadline": "6s", "subtasks": [subtask]})
    wait_until(begun.exists, "the check runs")
    postgres.stop()
    wait_until(lambda: processes_with(sleeper) == [], "the check has ended")
    postgres.start()
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "deadline")
    assert fleet.subtasks(job_id)[1]["status"] == "cancelled"


@pytest.mark.parametrize("away", ["postgres", "redis_server"])
@pytest.mark.parametrize(
    ("limits", "status"),
    [({"timeout": "6s"}, "timeout"), ({"idle_timeout": "6s"}, "timeout"), ({"deadline": "8s"}, "cancelled")],
    ids=["timeout", "idle_timeout", "deadline"],
)
def test_an_agents_clocks_run_while_a_service_is_away(
    fleet: TestFleet, tmp_path: Path, request: pytest.FixtureRequest, away: str, limits: dict[str, str], status: str
) -> None:
    server = request.getfixturevalue(away)
    sleeper, begun = "sleep 987.6522", tmp_path / "begun"
    fleet.start_dispatcher()
    fleet.start_worker()
    wait_until(lambda: "worker@test ready" in (tmp_path / "worker.log").read_text(), "the worker is ready")
    of_job = {key: value for key, value in limits.items() if key == "deadline"}
    of_subtask = {key: value for key, value in limits.items() if key != "deadline"}
    subtask = shell(1, f"touch {begun}; (setsid {sleeper} &); {sleeper}", **of_subtask)
    job_id = fleet.submit({"title": "Clocks", "max_retries": 0, **of_job, "subtasks": [subtask]})
    wait_until(begun.exists, "the agent runs")
    server.stop()
    wait_until(lambda: processes_with(sleeper) == [], "its whole tree has ended")
    assert not server.is_running()
    server.start()
    assert fleet.wait_for_end(job_id)["status"] == "failed"
    assert fleet.subtasks(job_id)[1]["status"] == status


def test_no_agent_starts_once_the_deadline_has_passed(fleet: TestFleet, tmp_path: Path) -> None:
    """Its remote came back too late: an agent that is ended at once would have cost its first request."""
    repository, begun = new_repository(tmp_path / "repository"), tmp_path / "begun"
    plan = {"title": "Late", "repo": str(repository), "deadline": "4s", "subtasks": [shell(1, f"touch {begun}")]}
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    hidden = repository.rename(tmp_path / "hidden")
    fleet.start_worker()  # and no dispatcher, that would end the job
    wait_until(lambda: fleet.rows("SELECT 1 FROM attempts"), "the attempt has begun")
    passed = "SELECT 1 FROM jobs WHERE deadline_at < clock_timestamp()"
    wait_until(lambda: fleet.rows(passed), "the deadline passes")
    hidden.rename(repository)
    job = fleet.wait_for_end(job_id)
    assert (job["status"], job["reason"]) == ("failed", "deadline")
    assert not begun.exists()
