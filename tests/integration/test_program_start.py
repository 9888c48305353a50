"""What a worker looks at before it starts an agent's program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import TestFleet
from tests.support.repositories import new_repository

pytestmark = pytest.mark.stack

HAPPY = 'echo hi > a.txt; echo \'{"type":"result","subtype":"success","result":"%s"}\''
SAID_DONE = 'echo \'{"type":"result","subtype":"success","result":"Done."}\''


def program(folder: Path, version: str, does: str) -> Path:
    """A stand-in for `claude` that knows its version, at a path of its own."""
    file = folder / "claude"
    file.write_text(f'#!/bin/bash\n[ "$1" = --version ] && {{ echo "{version} (Claude Code)"; exit; }}\n{does}\n')
    file.chmod(0o755)
    return file


def attempt_of(fleet: TestFleet, folder: Path, path: str, **words: Any) -> dict[str, Any]:
    agent = {"name": "claude-code", "path": path}
    subtask = {"subtask_id": 1, "title": "Part", "parallel_group": 1, "agent": agent, **words}
    repository = new_repository(folder / "repository")
    job_id = fleet.submit(
        {"title": "One", "repo": str(repository), "retry_failed_agents": False, "subtasks": [subtask]}
    )
    fleet.wait_for_end(job_id)
    return fleet.rows("SELECT * FROM attempts WHERE job_id = :id", id=job_id)[0]


def test_a_missing_program_is_named(shared_fleet: TestFleet, tmp_path: Path) -> None:
    attempt = attempt_of(shared_fleet, tmp_path, "claude-that-is-not-there")
    assert attempt["status"] == "agent_missing"
    assert attempt["error"] == "claude-that-is-not-there is not on this worker's PATH"


def test_a_program_that_is_too_old_is_not_started(shared_fleet: TestFleet, tmp_path: Path) -> None:
    file = program(tmp_path, "1.9.4", f"touch {tmp_path}/started")
    attempt = attempt_of(shared_fleet, tmp_path, str(file))
    assert attempt["status"] == "agent_missing"
    assert "has version 1.9.4, version 2.1 or newer is needed" in attempt["error"]
    assert not (tmp_path / "started").exists()


def test_what_a_read_only_agent_has_changed_is_not_taken(shared_fleet: TestFleet, tmp_path: Path) -> None:
    file = program(tmp_path, "2.1.330", HAPPY % "Done.")
    attempt = attempt_of(shared_fleet, tmp_path, str(file), permissions="read-only")
    assert (attempt["status"], attempt["commit"]) == ("permission_denied", None)
    assert "a.txt" in attempt["error"]


DENIED = (
    'echo \'{"type":"system","subtype":"permission_denied","tool_name":"Bash","message":"It requires approval"}\'; '
)


@pytest.mark.parametrize(
    ("does", "outcome"),
    [
        (DENIED + SAID_DONE, "permission_denied"),
        (DENIED + HAPPY % "Done.", "completed"),
        (SAID_DONE, "no_changes"),
    ],
)
def test_a_refusal_is_the_reason_where_nothing_was_changed(
    does: str, outcome: str, shared_fleet: TestFleet, tmp_path: Path
) -> None:
    attempt = attempt_of(shared_fleet, tmp_path, str(program(tmp_path, "2.1.330", does)))
    assert attempt["status"] == outcome
    if outcome == "permission_denied":
        words = "it changed nothing, for `permissions: edit` refused Bash (It requires approval)."
        assert attempt["error"] == f"{words} Give the subtask `permissions: full`."


@pytest.mark.skipif(os.geteuid() != 0, reason="speaks of root")
def test_root_runs_nothing_with_full_permissions_unless_the_machine_is_a_sandbox(
    fleet: TestFleet, tmp_path: Path
) -> None:
    file = program(tmp_path, "2.1.330", HAPPY % "Done.")
    fleet.start_dispatcher()
    fleet.start_worker()
    attempt = attempt_of(fleet, tmp_path, str(file), permissions="full")
    assert (attempt["status"], "as root" in attempt["error"]) == ("bad_config", True)
    fleet.stop("worker")
    fleet.start_worker("sandboxed", ORCHESTRATOR_SANDBOXED="true")
    (tmp_path / "again").mkdir()
    assert attempt_of(fleet, tmp_path / "again", str(file), permissions="full")["status"] == "completed"


def test_variables_pass_by_name_and_their_secrets_are_struck(fleet: TestFleet, tmp_path: Path) -> None:
    file = program(tmp_path, "2.1.330", "echo $FOR_ALL_KEY; echo $OTHERS_KEY; " + HAPPY % "'$FOR_ALL_KEY $OTHERS_KEY'")
    fleet.start_dispatcher()
    fleet.start_worker(
        ORCHESTRATOR_PASS_TO_AGENTS="FOR_ALL_KEY,codex:OTHERS_KEY",
        FOR_ALL_KEY="a-secret-for-all",
        OTHERS_KEY="a-secret-of-codex",
    )
    attempt = attempt_of(fleet, tmp_path, str(file))
    assert (attempt["status"], attempt["result"]) == ("completed", "*** ")
