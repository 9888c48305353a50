"""A plan proposed by an agent, asked for from Python: `Client.propose_plan`, and the agent as a task's decomposer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AgentDecomposer, Client, Orchestrator, ProposalError, StateManager, Task
from tests.support.fleet import TestFleet, open_fleet
from tests.support.planner_agent import MODULE, PlannerFolder
from tests.support.plans import subtask
from tests.support.repositories import git, new_repository
from tests.support.services import Services
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

TWO: dict[str, Any] = {
    "title": "Two parts",
    "subtasks": [
        subtask(1, parallel_group=1),
        subtask(2, parallel_group=1),
        subtask(3, parallel_group=1, kind="testing"),
    ],
}
CHECKED: dict[str, Any] = {**TWO, "group_checks": "test -f 1.txt"}
LARGE = Task(id=7, title="Parts", description="A file for each part.", estimated_complexity=80)


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> PlannerFolder:
    return PlannerFolder(tmp_path_factory.mktemp("planner") / "answers")


@pytest.fixture(scope="module")
def fleet(planner: PlannerFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestFleet]:
    servers, folder = Services(), tmp_path_factory.mktemp("fleet")
    one = open_fleet(servers.postgres.new_database(), servers.redis.url, folder, agent_modules=[MODULE])
    one.base_environment = {**os.environ, **planner.environment}
    one.start_dispatcher()
    one.start_worker()
    with pytest.MonkeyPatch.context() as environment:
        # On a busy machine a fleet may not answer in time, and a worker of the caller's own works beside it.
        for name, value in planner.environment.items():
            environment.setenv(name, value)
        yield one
    one.close()
    servers.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


def orchestrator_of(fleet: TestFleet, repository: Path, **more: Any) -> Orchestrator:
    config = {"parallel_execution": {"repo": str(repository), "max_parallel_agents": 2}}
    return Orchestrator(config, StateManager(fleet.settings), "planner", **{"decomposer": "agent", **more})


def newest_job(fleet: TestFleet) -> dict[str, Any]:
    return fleet.rows("SELECT id, status, reason, title FROM jobs ORDER BY created_at DESC LIMIT 1")[0]


def test_a_client_is_given_a_plan_and_submits_it(fleet: TestFleet, planner: PlannerFolder, repository: Path) -> None:
    planner.answers("nothing to do", CHECKED)

    async def story() -> Any:
        async with Client(fleet.settings) as client:
            proposal = await client.propose_plan("Parts", repo=str(repository), agent="planner", max_parallel_agents=3)
            return proposal, await client.wait(await client.submit(proposal.plan.plan))

    proposal, result = asyncio.run(story())
    assert (len(proposal.job_ids), proposal.spent.cost_usd, proposal.plan.plan.max_parallel_agents) == (2, 0.5, 3)
    assert [group.check for group in proposal.plan.groups] == ["test -f 1.txt"] * 2
    assert result.status == "completed"
    assert git(repository, "ls-tree", "--name-only", result.branch).split() == ["1.txt", "2.txt", "3.txt", "README"]


def test_a_client_that_wants_no_plan_any_more_cancels_the_agent(
    fleet: TestFleet, planner: PlannerFolder, repository: Path
) -> None:
    planner.answers()

    async def story() -> None:
        async with Client(fleet.settings) as client:
            asking = asyncio.ensure_future(client.propose_plan("Never", repo=str(repository), agent="planner"))
            await asyncio.to_thread(wait_until, planner.prompts, "the agent is at work")
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(story())
    job = newest_job(fleet)
    assert job["title"] == "Plan: Never"
    assert fleet.wait_for_end(job["id"])["status"] == "cancelled"


def test_a_task_is_cut_by_the_agent_that_works_at_it(
    fleet: TestFleet, planner: PlannerFolder, repository: Path
) -> None:
    planner.answers(CHECKED, TWO)
    merged = orchestrator_of(fleet, repository).execute_task(LARGE)
    assert merged["status"] == "completed"
    assert [(one["subtask_id"], one["group_number"]) for one in merged["subtasks"]] == [(1, 1), (2, 1), (3, 2)]
    assert git(repository, "ls-tree", "--name-only", merged["branch"]).split() == ["1.txt", "2.txt", "3.txt", "README"]
    first, second = planner.prompts()
    assert "Parts\n\nA file for each part." in first
    assert "check" not in first
    assert "`group_checks` is not the proposal's to say." in second


def test_a_task_that_is_not_worth_cutting_is_one_agents_work(
    fleet: TestFleet, planner: PlannerFolder, repository: Path
) -> None:
    planner.answers({**TWO, "subtasks": TWO["subtasks"][:1]})
    merged = orchestrator_of(fleet, repository).execute_task(LARGE)
    assert [one["title"] for one in merged["subtasks"]] == ["Parts"]
    small = Task(id=8, title="Small", description="", estimated_complexity=10)
    merged = orchestrator_of(fleet, repository).execute_task(small)
    assert [one["title"] for one in merged["subtasks"]] == ["Small"]
    assert len(planner.prompts()) == 1, "a small task is not asked about"


def test_no_plan_is_an_error_with_its_faults(fleet: TestFleet, planner: PlannerFolder, repository: Path) -> None:
    planner.answers("no", "no", "no")
    decomposer = AgentDecomposer("planner", repo=str(repository), settings=fleet.settings)
    with pytest.raises(ProposalError, match="asked 3 times") as raised:
        decomposer("Parts")
    assert [fault.message for fault in raised.value.faults] == ["The answer holds no JSON object with `subtasks`."]


def test_an_agent_that_fails_is_an_error_that_says_why(
    fleet: TestFleet, planner: PlannerFolder, repository: Path
) -> None:
    planner.answers()
    decomposer = AgentDecomposer("planner", repo=str(repository), settings=fleet.settings, timeout_seconds=0.5)
    with pytest.raises(ProposalError, match="its time limit") as raised:
        decomposer("Parts")
    assert raised.value.faults == ()
    assert "orchestrator logs" in raised.value.recovery
