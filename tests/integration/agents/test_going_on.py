"""The row "resume on another worker": a worker is shut down in the midst of an agent's tool, another goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.integration.agents.programs import CLAUDE, CODEX, Program, worker_environment
from tests.integration.agents.table import Table
from tests.integration.agents.test_conformance import COUNTED, fleet, model, servers, table  # noqa: F401 - fixtures
from tests.support.fleet import TestFleet
from tests.support.model_server.script import Script, say, shell
from tests.support.model_server.server import ModelServer
from tests.support.repositories import git, new_repository
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.agents, pytest.mark.timeout(240)]


@pytest.mark.parametrize("how", ["TERM", "KILL"])
@pytest.mark.parametrize("program", [CLAUDE, CODEX], ids=lambda program: program.program)
def test_resume_on_another_worker(
    program: Program,
    how: str,
    fleet: TestFleet,  # noqa: F811
    model: ModelServer,  # noqa: F811
    table: Table,  # noqa: F811
    tmp_path: Path,
) -> None:
    program.require()
    script = Script(
        [
            shell("echo one > one.txt"),
            shell("test -e started.txt || { touch started.txt; sleep 300; }"),
            shell("cp one.txt a.txt"),
            say("Done."),
        ]
    )
    repository = new_repository(tmp_path / "repository")
    quick = {"ORCHESTRATOR_CHECKPOINT_SECONDS": "0.5"}
    leaving, heir = (f"{name}-{program.program}-{how.lower()}" for name in ("leaving", "heir"))
    environment = {**worker_environment(model.url, tmp_path / "home"), **quick}
    fleet.start_worker(leaving, capabilities=[leaving], **environment)
    subtask = {"subtask_id": 1, "title": "The part", "parallel_group": 1, "description": script.prompt}
    defaults = {"agent": program.agent(), "requires": [leaving], "permissions": program.permissions}
    job_id = fleet.submit({"title": "Resume", "repo": str(repository), "defaults": defaults, "subtasks": [subtask]})
    begun = fleet.settings.workspaces_dir
    wait_until(lambda: list(begun.glob(f"{job_id}-*/checkout/started.txt")), "the tool works", timeout_seconds=60)
    if how == "KILL":
        wait_until(lambda: "started.txt" in _kept(fleet, job_id, repository), "a checkpoint has it", timeout_seconds=30)
    fleet.stop(leaving, getattr(signal, f"SIG{how}"))
    fleet.start_worker(heir, capabilities=[leaving], **environment)
    job = fleet.wait_for_end(job_id, timeout_seconds=120)
    attempts = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    told = {kind: sum((one["usage"] or {}).get(kind, 0) for one in attempts) for kind in COUNTED}
    outcome = "interrupted" if how == "TERM" else "worker_lost"
    assert [(one["status"], one["resumed_from"], one["worker"]) for one in attempts] == [
        (outcome, None, f"{leaving}@test"),
        ("completed", 1, f"{heir}@test"),
    ], fleet.describe(job_id)
    assert len({one["session_id"] for one in attempts if one["session_id"]}) == 1
    # The script stands in the first prompt alone: that it was gone on with says that the model has seen all of it.
    asked_again = 0 if how == "TERM" else 1  # what came after the last checkpoint
    assert 4 <= model.requests(script) <= 4 + asked_again
    assert git(repository, "show", f"orchestrator/{job_id}:a.txt") == "one\n"
    assert job["status"] == "completed"
    table.note(
        f"resume on another worker, {how}",
        program,
        f"{outcome}, completed, {model.requests(script)} requests, {sum(told.values()):,} tokens",
    )
    if how == "TERM":
        assert told == {kind: model.tokens(script)[kind] for kind in COUNTED}
    stored = fleet.rows("SELECT 1 FROM checkpoints WHERE job_id = :id", id=job_id)
    assert stored == []


def _kept(fleet: TestFleet, job_id: str, repository: Path) -> list[str]:
    """The files of the job's checkpoint."""
    rows = fleet.rows("SELECT commit FROM checkpoints WHERE job_id = :id AND commit IS NOT NULL", id=job_id)
    return git(repository, "ls-tree", "--name-only", rows[0]["commit"]).split() if rows else []
