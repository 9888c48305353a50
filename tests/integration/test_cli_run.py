"""The commands that start, submit and steer, on a local stack of their own."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.processes import processes_of
from tests.support.services import open_temporary_folder
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

QUICK = """\
title: Quick
subtasks:
  - {subtask_id: 1, title: One, description: x, parallel_group: 1, agent: {name: shell, command: "echo hello"}}
"""
ENDLESS = QUICK.replace("echo hello", "echo begun; sleep 600")


class TerminalWithPlan(Terminal):
    """Each command finds its plan in `plan.yaml`."""

    def start(self, *words: str, plan: str = QUICK) -> subprocess.Popen[str]:
        (self.folder / "plan.yaml").write_text(plan)
        return super().start(*words)

    def run(self, *words: str, plan: str = QUICK, code: int = 0) -> str:
        return self.end_of(self.start(*words, plan=plan), code=code)


@pytest.fixture
def terminal() -> Iterator[TerminalWithPlan]:
    folder = open_temporary_folder("orchestrator-cli-")
    terminal = TerminalWithPlan(folder, folder / "state")
    yield terminal
    terminal.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_plan_runs_and_its_story_can_be_read_afterwards(terminal: TerminalWithPlan) -> None:
    lines = [json.loads(line) for line in terminal.run("run", "plan.yaml", "--json").splitlines()]
    assert (lines[0]["type"], lines[-1]["type"]) == ("submitted", "summary")
    assert {line["name"] for line in lines[1:-1]} >= {"job.started", "attempt.started", "job.finished"}
    assert lines[-1]["job"]["status"] == "completed"
    assert "hello" in terminal.run("logs")
    assert lines[0]["job_id"] in terminal.run("status")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cancels_the_job_and_waits_for_its_end(
    terminal: TerminalWithPlan, number: signal.Signals
) -> None:
    process = terminal.start("run", "plan.yaml", plan=ENDLESS)
    terminal.read_until(process, "#1 One starts on")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Cancelling the job" in err
    assert re.search(r"job [0-9a-f]{12}: cancelled", out)
    assert json.loads(terminal.run("status", "--json"))["job"]["status"] == "cancelled"


def test_a_second_interruption_leaves_without_waiting_and_nothing_stays(terminal: TerminalWithPlan) -> None:
    stubborn = ENDLESS.replace("sleep 600", "trap true TERM; while true; do sleep 600; done")
    process = terminal.start("run", "plan.yaml", plan=stubborn)
    terminal.read_until(process, "#1 One starts on")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    wait_until(lambda: "Cancelling the job" in process.stderr.readline(), "the first one is heard")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is being cancelled: orchestrator status" in err
    assert processes_of(terminal.folder), "nobody waited for the end of the stack"
    wait_until(lambda: not processes_of(terminal.folder), "nothing is left")


def test_a_repository_that_is_none_is_told_before_anything_starts(terminal: TerminalWithPlan) -> None:
    said = terminal.run("run", "plan.yaml", plan=QUICK + "repo: ./nowhere\n", code=2)
    assert "nowhere" in said
    assert not (terminal.folder / "state").exists()


def test_an_agent_whose_program_is_missing_is_told_before_anything_starts(terminal: TerminalWithPlan) -> None:
    late = "  - {subtask_id: 2, title: Two, description: x, parallel_group: 2, agent: {name: claude-code, path: /nowhere/claude}}\n"
    said = terminal.run("run", "plan.yaml", plan=QUICK + late, code=2)
    assert "The agent claude-code needs the program /nowhere/claude, which is not on the PATH." in said
    assert "orchestrator agents" in said
    assert not (terminal.folder / "state").exists()


def test_a_killed_keeper_ends_the_command_and_the_user_hears_how_to_go_on(terminal: TerminalWithPlan) -> None:
    process = terminal.start("run", "plan.yaml", plan=ENDLESS)
    terminal.read_until(process, "#1 One starts on")
    os.kill(int((terminal.folder / "state" / "keeper.lock").read_text()), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "The keeper of the local stack was ended." in err
    told = re.search(r"Job (\w{12}) is stored\. `orchestrator up` starts the local stack again", err)
    assert told is not None, err
    assert json.loads(terminal.run("status", told.group(1), "--json"))["job"]["status"] == "running"


def test_a_reader_that_leaves_a_run_hears_where_its_job_is(terminal: TerminalWithPlan) -> None:
    gate = terminal.folder / "gate"
    wait = f"until test -e {gate}; do sleep 0.02; done"
    first = QUICK.replace("echo hello", f"{wait}; sleep 600")
    second = QUICK.splitlines()[-1].replace("subtask_id: 1", "subtask_id: 2").replace("echo hello", wait)
    process = terminal.start("run", "plan.yaml", plan=f"{first}{second}\n")
    terminal.read_until(process, "starts on")
    assert process.stdout is not None
    process.stdout.close()
    gate.touch()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert "Traceback" not in err
    told = re.search(r"Nobody reads any more\. Job (\w{12}) is stored\.", err)
    assert told is not None, err
    assert json.loads(terminal.run("status", told.group(1), "--json"))["job"]["status"] == "running"


def test_a_job_without_a_dispatcher_is_stored_and_retried_to_its_end(terminal: TerminalWithPlan) -> None:
    said = terminal.run("submit", "plan.yaml")
    assert "no dispatcher and no worker answers" in said
    job_id = said.split()[0]
    assert "is cancelled" in terminal.run("cancel", job_id[:4])
    assert "nothing to cancel" in terminal.run("cancel", job_id)
    said = terminal.run("retry", job_id, "--wait")
    assert f"Job {job_id} runs 1 subtask again: #1" in said
    assert "cancelled" not in said
    assert f"job {job_id}: completed" in said


def test_a_key_gives_the_same_job_twice(terminal: TerminalWithPlan) -> None:
    first, second = (terminal.run("submit", "plan.yaml", "--idempotency-key", "k").split()[0] for _ in range(2))
    assert first == second


def test_up_shows_flower_to_who_has_the_password(terminal: TerminalWithPlan) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    up = terminal.start("up", "--flower-port", str(port))
    assert up.stdout is not None
    line = next(line for line in up.stdout if line.startswith("Flower: "))
    url, login = re.fullmatch(r"Flower: (\S+), user and password: (\S+)\n", line).groups()  # type: ignore[union-attr]

    def status(headers: dict[str, str]) -> int:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/workers", headers=headers), timeout=10
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    wait_until(lambda: status({}) == 401, "Flower refuses who has no password")
    authorized = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    assert status(authorized) == 200
    assert f"Port {port} on 127.0.0.1 can't be used" in terminal.run("up", "--flower-port", str(port), code=2)
    wait_until(
        lambda: (
            {node["role"] for node in json.loads(terminal.run("workers", "--json"))["workers"]}
            == {"dispatcher", "worker"}
        ),
        "dispatcher and worker answer",
    )
    up.kill()
    up.wait()
    wait_until(lambda: status({}) == 0, "Flower has ended with the program that started it")


def test_the_doctor_finds_this_set_up_well(terminal: TerminalWithPlan) -> None:
    document = json.loads(terminal.run("doctor", "--json"))
    assert document["healthy"] is True
    found = {check["name"]: check["state"] for check in document["checks"]}
    assert {name: found[name] for name in ("git", "settings", "state folder", "database", "broker")} == dict.fromkeys(
        ("git", "settings", "state folder", "database", "broker"), "ok"
    )
