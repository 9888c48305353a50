"""The commands that ask the processes of a fleet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml

from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

OWN_AGENT = """
from orchestrator import AgentPlugin, register_agent

@register_agent("own")
class Own(AgentPlugin):
    def send_prompt(self, prompt, context=None):
        return "done"
"""


@pytest.fixture
def fleet(shared_fleet: TestFleet) -> TestFleet:
    names = {"dispatcher@test", "worker@test"}
    wait_until(lambda: set(shared_fleet.client.app.control.inspect().ping() or ()) == names, "both answer")
    return shared_fleet


def test_those_that_are_named_are_shown_alone(fleet: TestFleet) -> None:
    everybody = json.loads(fleet.program("workers", "--json").stdout)["workers"]
    assert [(node["name"], node["role"]) for node in everybody] == [
        ("dispatcher@test", "dispatcher"),
        ("worker@test", "worker"),
    ]
    one = json.loads(fleet.program("workers", "worker@test", "--json").stdout)["workers"]
    assert one == [{**everybody[1], "agents": None}], "who asks after one process does not wait for its programs"


def test_a_name_that_is_silent_is_an_error(fleet: TestFleet) -> None:
    done = fleet.program("workers", "worker@test", "worker@elsewhere")
    assert done.returncode == 3
    assert "error: worker@elsewhere did not answer." in done.stderr
    assert "Traceback" not in done.stderr


def test_who_waits_for_a_fleet_starts_nothing_beside_it(fleet: TestFleet, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"title": "One", "subtasks": [shell(1, "echo hello")]}))
    state_dir = tmp_path / "state"
    done = fleet.program("submit", str(plan), "--wait", ORCHESTRATOR_STATE_DIR=str(state_dir))
    assert done.returncode == 0, done.stderr
    assert "on worker@test" in done.stdout
    assert not (state_dir / "keeper.lock").exists()


def test_flower_is_not_led_astray_by_a_users_folder_of_our_name(fleet: TestFleet, tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise RuntimeError('this is somebody else')\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flower = subprocess.Popen(
        [Path(sys.executable).with_name("orchestrator"), "flower", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, **fleet.variables()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def status() -> int | None:
        assert flower.poll() is None, "Flower has ended"
        with suppress(ConnectionRefusedError), closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", "/workers")
            return connection.getresponse().status
        return None

    try:
        assert wait_until(status, "Flower answers") == 401
    finally:
        flower.terminate()
        flower.wait(timeout=30)


def stand_in(folder: Path, version: str) -> str:
    """A folder for a PATH, with a `claude` that says its version."""
    folder.mkdir()
    (folder / "claude").write_text(f'#!/bin/sh\necho "{version} (Claude Code)"\n')
    (folder / "claude").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.timeout(400)
def test_a_program_that_a_worker_has_not_is_told_when_a_plan_that_needs_it_is_submitted(
    database: str, broker: str, tmp_path: Path
) -> None:
    fleet = open_fleet(database, broker, tmp_path)
    plan = tmp_path / "plan.yaml"
    agents = ["claude-code", "claude-code", "shell"]
    needs = [["new"], ["old"], []]
    plan.write_text(
        yaml.safe_dump(
            {
                "title": "Both",
                "subtasks": [
                    {
                        **shell(number, "true"),
                        "requires": requires,
                        **({} if agent == "shell" else {"agent": agent}),
                    }
                    for number, agent, requires in zip((1, 2, 3), agents, needs, strict=True)
                ],
            }
        )
    )
    try:
        fleet.start_worker("new", capabilities=["new", "all"], PATH=stand_in(tmp_path / "a", "2.1.330"))
        fleet.start_worker("old", capabilities=["old", "all"], PATH=stand_in(tmp_path / "b", "1.9.4"))
        fleet.start_worker("none", capabilities=["all"], PATH=os.defpath)
        names = {"new@test", "old@test", "none@test"}
        wait_until(lambda: set(fleet.client.app.control.inspect().ping() or ()) == names, "all answer")
        done = fleet.program("submit", str(plan))
        assert done.returncode == 0, done.stderr
        (told,) = (line for line in done.stderr.splitlines() if "claude-code" in line)
        assert told.startswith("warning: No worker that answers can start claude-code for subtask 2 (old@test: ")
        assert "version 2.1 or newer is needed" in told

        plan.write_text(plan.read_text().replace("- new\n", "- all\n"))
        told = fleet.program("submit", str(plan)).stderr
        assert (
            "warning: 2 workers of 3 can't start claude-code for subtask 1 (none@test: claude is not on the PATH"
            in told
        )

        shown = json.loads(fleet.program("workers", "--json").stdout)["workers"]
        claude = {node["name"]: one for node in shown for one in node["agents"] if one["name"] == "claude-code"}
        assert {name: (one["found"], one["version"], one["supported"]) for name, one in claude.items()} == {
            "new@test": (True, "2.1.330", True),
            "old@test": (True, "1.9.4", False),
            "none@test": (False, None, False),
        }
        assert "claude-code 2.1.330" in fleet.program("workers", COLUMNS="200").stdout

        fleet.start_dispatcher()
        wait_until(lambda: len(fleet.client.app.control.inspect().ping() or ()) == 4, "the dispatcher answers too")
        subtask = {**shell(1, "true"), "agent": "claude-code", "requires": ["old"]}
        plan.write_text(yaml.safe_dump({"title": "One", "subtasks": [subtask]}))
        done = fleet.program("run", str(plan))
        assert (done.returncode, "agent_missing" in done.stdout) == (1, True), done.stdout + done.stderr
        assert "warning: No worker that answers can start claude-code for subtask 1 (old@test: " in done.stderr

        [newest] = fleet.rows("SELECT id FROM jobs ORDER BY created_at DESC LIMIT 1")
        again = fleet.program("retry", newest["id"], "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["subtask_ids"] == [1]
        assert "warning: No worker that answers can start claude-code for subtask 1 (old@test: " in again.stderr
    finally:
        fleet.close()


def test_an_agent_that_a_worker_does_not_know_is_told_as_well(fleet: TestFleet, tmp_path: Path) -> None:
    """The module is named here, and not where the worker runs."""
    (tmp_path / "own_agents.py").write_text(OWN_AGENT)
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"title": "Own", "subtasks": [{**shell(1, "true"), "agent": "own"}]}))
    here = {"ORCHESTRATOR_AGENT_MODULES": "own_agents", "PYTHONPATH": str(tmp_path)}
    told = fleet.program("submit", str(plan), **here).stderr
    assert 'can start own for subtask 1 (worker@test: unknown agent "own"' in told
