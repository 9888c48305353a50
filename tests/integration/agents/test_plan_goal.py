"""Real programs are asked for a plan: the question reaches the model, its answer comes back whole, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AgentSpec, Client
from tests.integration.agents.programs import CLAUDE, CODEX, Program, worker_environment
from tests.support.fleet import TestFleet, open_fleet
from tests.support.model_server.script import Script, say
from tests.support.model_server.server import ModelServer
from tests.support.plans import group_ids, subtask
from tests.support.repositories import git, new_repository
from tests.support.services import Services

pytestmark = [pytest.mark.stack, pytest.mark.agents, pytest.mark.timeout(240)]

PARTS = [
    subtask(number, parallel_group=1, description="Say “what” {and} ```where```.\n" * 20) for number in range(1, 21)
]
ANSWER: dict[str, Any] = {"title": "Twenty parts", "subtasks": [*PARTS, subtask(21, parallel_group=1, kind="testing")]}


@pytest.fixture(scope="module")
def fleet(servers: Services, model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestFleet]:
    folder = tmp_path_factory.mktemp("agents")
    one = open_fleet(servers.postgres.new_database(), servers.redis.url, folder, lease_seconds=10.0)
    one.base_environment = worker_environment(model.url, folder / "home")
    one.start_dispatcher()
    one.start_worker()
    yield one
    one.close()


@pytest.mark.parametrize("program", [CLAUDE, CODEX], ids=lambda program: program.program)
@pytest.mark.parametrize(
    "wrapped", ["{}", "Here it is.\n\n```json\n{}\n```\n\nTell me what you think."], ids=["bare", "fenced"]
)
def test_the_program_is_asked_and_answers(
    program: Program, wrapped: str, fleet: TestFleet, model: ModelServer, tmp_path: Path
) -> None:
    program.require()
    script = Script([say(wrapped.replace("{}", json.dumps(ANSWER, ensure_ascii=False)))])
    repository = new_repository(tmp_path / "repository")
    agent = AgentSpec(name=program.name, config=dict(program.config))

    async def story() -> Any:
        async with Client(fleet.settings) as client:
            return await client.propose_plan(f"Do it. {script.prompt}", repo=str(repository), agent=agent)

    proposal = asyncio.run(story())
    assert model.requests(script) == 1
    assert group_ids(proposal.plan) == {1: list(range(1, 21)), 2: [21]}
    assert [one.description for one in proposal.plan.plan.subtasks[:20]] == [part["description"] for part in PARTS]
    assert (len(proposal.job_ids), len(proposal.notes)) == (1, 1)
    assert git(repository, "for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]
