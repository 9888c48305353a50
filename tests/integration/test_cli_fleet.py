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

from tests.support.fleet import TestFleet
from tests.support.repositories import shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


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
    assert one == everybody[1:]


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
