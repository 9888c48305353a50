"""The row "resume on another worker": a worker is shut down in the midst of an agent's tool, another goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.prices import price_of
from tests.integration.agents.programs import CLAUDE, CODEX, GEMINI, Program, worker_environment
from tests.integration.agents.table import COUNTED, Table
from tests.support.fleet import TestFleet, open_fleet
from tests.support.model_server.script import Script, say, shell
from tests.support.model_server.server import ModelServer
from tests.support.repositories import git, new_repository
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.agents, pytest.mark.timeout(240)]


@pytest.fixture
def fleet(database: str, broker: str, tmp_path: Path, model: ModelServer) -> Iterator[TestFleet]:
    """A dispatcher; the workers come and go."""
    one = open_fleet(database, broker, tmp_path, lease_seconds=10.0, sandboxed=True, checkpoint_seconds=0.5)
    one.base_environment = worker_environment(model.url, tmp_path / "home")
    one.start_dispatcher()
    yield one
    one.close()


@pytest.mark.parametrize("how", ["TERM", "KILL"])
@pytest.mark.parametrize("program", [CLAUDE, CODEX, GEMINI], ids=lambda program: program.program)
def test_resume_on_another_worker(
    program: Program,
    how: str,
    fleet: TestFleet,
    model: ModelServer,
    table: Table,
    tmp_path: Path,
) -> None:
    program.require()
    script = Script(
        [
            shell("echo one > one.txt"),
            shell("test $ORCHESTRATOR_ATTEMPT_NUMBER = 2 || { touch started.txt; sleep 300; }"),
            shell("cp one.txt a.txt"),
            say("Done."),
        ]
    )
    repository = new_repository(tmp_path / "repository")
    fleet.start_worker("leaving")
    subtask = {"subtask_id": 1, "title": "The part", "parallel_group": 1, "description": script.prompt}
    defaults = {"agent": program.agent(), "permissions": program.permissions}
    job_id = fleet.submit({"title": "Resume", "repo": str(repository), "defaults": defaults, "subtasks": [subtask]})
    begun = fleet.settings.workspaces_dir
    wait_until(lambda: list(begun.glob(f"{job_id}-*/checkout/started.txt")), "the tool works", timeout_seconds=60)
    if how == "KILL":
        wait_until(lambda: "one.txt" in _kept(fleet, job_id, repository), "a checkpoint has it", timeout_seconds=30)
    fleet.stop("leaving", getattr(signal, f"SIG{how}"))
    fleet.start_worker("heir")
    job = fleet.wait_for_end(job_id, timeout_seconds=120)
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    told = {kind: sum((one["usage"] or {}).get(kind, 0) for one in attempts) for kind in COUNTED}
    outcome = "interrupted" if how == "TERM" else "worker_lost"
    assert [(one["status"], one["resumed_from"], one["worker"]) for one in attempts] == [
        (outcome, None, "leaving@test"),
        ("completed", 1, "heir@test"),
    ], fleet.describe(job_id)
    assert len({one["session_id"] for one in attempts if one["session_id"]}) == 1
    # The script stands in the first prompt alone: that it was gone on with says that the model has seen all of it.
    asked_again = 0 if how == "TERM" else 1  # what came after the last checkpoint
    assert 4 <= model.requests(script) <= 4 + asked_again
    assert git(repository, "show", f"orchestrator/{job_id}:a.txt") == "one\n"
    assert job["status"] == "completed"
    row = f"resume on another worker, {'worker asked to stop' if how == 'TERM' else 'worker killed'}"
    table.note_attempts(row, program, attempts, model.requests(script), expected=[outcome, "completed"])
    if how == "TERM" and program is not GEMINI:  # which tells no tokens unless it ends by itself
        assert told == {kind: model.tokens(script)[kind] for kind in COUNTED}
        price = price_of(attempts[-1]["model"], {})
        assert price is not None
        paid = sum(one["cost_usd"] for one in attempts)
        assert paid == pytest.approx(price.of(told), abs=1e-9), "a program's own sum of its session is not added again"
    stored = fleet.rows("SELECT 1 FROM checkpoints WHERE job_id = :id", id=job_id)
    assert stored == []


def _kept(fleet: TestFleet, job_id: str, repository: Path) -> list[str]:
    """The files of the job's checkpoint."""
    rows = fleet.rows("SELECT commit FROM checkpoints WHERE job_id = :id AND commit IS NOT NULL", id=job_id)
    return git(repository, "ls-tree", "--name-only", rows[0]["commit"]).split() if rows else []
