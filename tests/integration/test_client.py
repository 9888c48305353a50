"""`Client` over the real queue: submit, wait, stream events and cancel from asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Client, Plan, PlanError, SubTask
from orchestrator.errors import IllegalRequest, UnknownJob
from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository, shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    return shared_fleet


def with_client(fleet: TestFleet, story: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(fleet.settings) as client:
            return await asyncio.wait_for(story(client), timeout=60)

    return asyncio.run(run())


def plan_of(*subtasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "Client", "subtasks": list(subtasks), **more}


def test_a_plan_in_python_is_submitted_waited_for_and_has_results(fleet: TestFleet, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    spec: Any = {"name": "shell", "command": "echo one > 1.txt; echo made one"}
    plan = Plan(title="Python", repo=str(repository), subtasks=[SubTask(subtask_id=1, title="One", agent=spec)])

    async def story(client: Client) -> Any:
        job_id = await client.submit(plan)
        return await client.wait(job_id[:8])

    result = with_client(fleet, story)
    assert (result.status, result.succeeded, result.reason) == ("completed", True, None)
    [one] = result.subtasks
    assert (one.status, one.result, one.files_changed, one.merged) == ("completed", "made one", ("1.txt",), True)
    assert git(repository, "rev-parse", result.branch).strip() == result.head_commit


def test_a_plans_file_is_submitted_once_for_each_key(fleet: TestFleet, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan_of(shell(1, "true"))))

    async def story(client: Client) -> list[str]:
        key = f"client-{tmp_path.name}"
        return [await client.submit(file, idempotency_key=key), await client.submit(str(file), idempotency_key=key)]

    one, other = with_client(fleet, story)
    assert one == other


def test_a_failed_job_is_a_result_and_costs_are_summed_over_attempts(fleet: TestFleet) -> None:
    script = [{"usage": {"input_tokens": 5}, "cost_usd": 0.25}, {"fail": "not today"}]
    subtask = {"subtask_id": 1, "title": "Fail", "agent": {"name": "scripted", "script": script}}

    async def story(client: Client) -> Any:
        return await client.wait(await client.submit(plan_of(subtask, max_retries=1)))

    result = with_client(fleet, story)
    assert (result.status, result.reason, result.succeeded) == ("failed", "subtasks_failed", False)
    [one] = result.subtasks
    assert (one.attempts, one.cost_usd, dict(one.usage)) == (2, 0.5, {"input_tokens": 10})
    assert one.error == "not today"


def test_events_come_once_in_order_and_end_with_the_job(fleet: TestFleet) -> None:
    async def story(client: Client) -> Any:
        job_id = await client.submit(plan_of(shell(1, "true"), shell(2, "true", group=2)))
        events = [event async for event in client.stream_events(job_id)]
        later = [event async for event in client.stream_events(job_id, after_event=events[-2].id)]
        return events, later

    events, later = with_client(fleet, story)
    names = [event.name for event in events]
    assert names[0] == "job.submitted"
    assert names[-1] == "job.finished"
    assert names.count("attempt.finished") == 2
    assert len({event.id for event in events}) == len(events)
    assert [event.id for event in later] == [events[-1].id]


def test_a_stream_may_be_left_and_the_loop_stays_free_meanwhile(fleet: TestFleet) -> None:
    async def story(client: Client) -> Any:
        job_id = await client.submit(plan_of(shell(1, "sleep 600")))
        async for event in client.stream_events(job_id):
            if event.name == "attempt.started":
                break
        view = await client.status(job_id)
        assert [subtask.status for subtask in view.subtasks] == ["in_progress"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.wait(job_id)
        assert await client.cancel(job_id) is True
        result = await client.wait(job_id)
        assert await client.cancel(job_id) is False
        return result

    result = with_client(fleet, story)
    assert (result.status, result.subtasks[0].status) == ("cancelled", "cancelled")


def test_many_jobs_are_waited_for_at_once(fleet: TestFleet) -> None:
    async def story(client: Client) -> Any:
        ids = await asyncio.gather(*(client.submit(plan_of(shell(1, f"echo {n}"))) for n in range(20)))
        return await asyncio.gather(*(client.wait(job_id) for job_id in ids))

    assert [result.subtasks[0].result for result in with_client(fleet, story)] == [str(n) for n in range(20)]


def test_faults_of_a_plan_and_unknown_jobs_are_raised(fleet: TestFleet) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(PlanError, match="used twice"):
            await client.submit(plan_of(shell(1, "true"), shell(1, "true")))
        for call in (client.wait, client.status, client.cancel):
            with pytest.raises(UnknownJob):
                await call("0123456789ab")
        with pytest.raises(UnknownJob):
            async for _ in client.stream_events("0123456789ab"):
                pass

    with_client(fleet, story)


def test_a_program_that_a_worker_has_not_is_logged_once_a_client(
    fleet: TestFleet, caplog: pytest.LogCaptureFixture
) -> None:
    agent = {"name": "claude-code", "path": "/nowhere/claude"}
    plan = plan_of({"subtask_id": 4, "title": "x", "agent": agent}, shell(5, "true"))

    async def story(client: Client) -> None:
        for _ in range(2):
            await client.submit(plan)

    wait_until(lambda: len(fleet.client.app.control.inspect().ping() or ()) == 2, "the worker answers")
    with_client(fleet, story)
    [told] = [record for record in caplog.records if record.name == "orchestrator.client"]
    assert told.levelname == "WARNING"
    assert told.getMessage().startswith("No worker that answers can start claude-code for subtask 4 (worker@test: ")


def test_a_client_that_is_not_open_says_so(fleet: TestFleet) -> None:
    with pytest.raises(IllegalRequest, match="not open"):
        asyncio.run(Client(fleet.settings).submit(plan_of(shell(1, "true"))))
