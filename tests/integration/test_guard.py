"""Nothing of an attempt lives on, however its worker ends: killed, stopped, asked to leave, with or without its guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import is_orphaned, owner_of_this_process
from tests.support.escaped import alive, escaped_processes, escaping_command, wait_until_gone
from tests.support.fleet import TestFleet
from tests.support.repositories import new_repository, shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

GONE_SECONDS = 5.0
"""The promise: so long after an attempt's end nothing of it is alive."""


def guard_of(worker: subprocess.Popen[bytes]) -> psutil.Process:
    def find() -> psutil.Process | None:
        children = psutil.Process(worker.pid).children()
        return next((child for child in children if "guard_program.py" in " ".join(child.cmdline())), None)

    return wait_until(find, "the worker has a guard")


def first_only(command: str) -> str:
    """`command` in the first attempt; the next ones complete at once."""
    return f"test $ORCHESTRATOR_ATTEMPT_NUMBER = 1 || exit 0; {command}"


def escape_in(folder: Path, fleet: TestFleet) -> tuple[str, dict[str, psutil.Process]]:
    folder.mkdir()
    plan = {"title": "Escape", "subtasks": [shell(1, first_only(escaping_command(folder)))]}
    job_id = fleet.submit(plan)
    return job_id, escaped_processes(folder)


def statuses(fleet: TestFleet, job_id: str) -> list[str]:
    rows = fleet.rows("SELECT status FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    return [row["status"] for row in rows]


def test_a_killed_worker_leaves_no_process(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker("doomed")
    job_id, processes = escape_in(tmp_path / "pids", fleet)
    guard = guard_of(worker)
    fleet.stop("doomed", signal.SIGKILL)
    wait_until_gone({**processes, "guard": guard}, timeout_seconds=GONE_SECONDS)
    assert "agents were killed" in (tmp_path / "doomed.log").read_text()
    fleet.start_worker("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert statuses(fleet, job_id) == ["worker_lost", "completed"]


def test_a_worker_that_stood_still_past_its_lease_finds_its_agents_ended_and_records_nothing(
    fleet: TestFleet, tmp_path: Path
) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker("sleeper", slots=1)
    job_id, processes = escape_in(tmp_path / "pids", fleet)
    fleet.start_worker("heir")
    worker.send_signal(signal.SIGSTOP)
    try:
        wait_until_gone(processes, timeout_seconds=fleet.settings.lease_seconds + GONE_SECONDS)
        assert fleet.wait_for_end(job_id)["status"] == "completed", "while the first worker stands still"
    finally:
        worker.send_signal(signal.SIGCONT)
    refused = "was taken from this worker"
    log = tmp_path / "sleeper.log"
    wait_until(lambda: refused in log.read_text(), "the worker that woke up has found its lease gone")
    assert statuses(fleet, job_id) == ["worker_lost", "completed"]
    # It is a good worker again: its guard lets its next agents live.
    fleet.stop("heir")
    again = fleet.submit({"title": "Again", "subtasks": [shell(1, "sleep 4; echo done")]})
    assert fleet.wait_for_end(again)["status"] == "completed"
    assert statuses(fleet, again) == ["completed"]


def test_a_worker_that_pauses_within_its_lease_keeps_its_agents(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker()
    gate = tmp_path / "gate"
    job_id = fleet.submit({"title": "Pause", "subtasks": [shell(1, f"until test -e {gate}; do sleep 0.05; done")]})
    wait_until(lambda: fleet.subtasks(job_id)[1]["status"] == "in_progress", "the agent runs")
    guard = guard_of(worker)
    worker.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED, "the worker stands still")
    worker.send_signal(signal.SIGCONT)
    gate.touch()
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert statuses(fleet, job_id) == ["completed"]
    assert guard.is_running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_is_asked_to_leave_takes_its_agents_and_its_guard_along(
    fleet: TestFleet, tmp_path: Path, number: signal.Signals
) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker("leaving")
    _, processes = escape_in(tmp_path / "pids", fleet)
    guard = guard_of(worker)
    fleet.stop("leaving", number)
    wait_until_gone({**processes, "guard": guard}, timeout_seconds=GONE_SECONDS)


def test_a_guard_that_is_killed_is_replaced_and_its_successor_knows_all(fleet: TestFleet, tmp_path: Path) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker("doomed")
    _, processes = escape_in(tmp_path / "pids", fleet)
    first = guard_of(worker)
    first.kill()
    wait_until(lambda: not first.is_running(), "the worker has noticed")
    second = guard_of(worker)
    assert alive(processes) == list(processes), "a guard that dies ends nothing"
    assert "another one is started" in (tmp_path / "doomed.log").read_text()
    fleet.stop("doomed", signal.SIGKILL)
    wait_until_gone({**processes, "guard": second}, timeout_seconds=GONE_SECONDS)


def test_a_new_worker_ends_what_a_worker_and_its_guard_left_when_both_were_killed(
    fleet: TestFleet, tmp_path: Path
) -> None:
    fleet.start_dispatcher()
    worker = fleet.start_worker("doomed")
    _, processes = escape_in(tmp_path / "pids", fleet)
    guard = guard_of(worker)
    worker.send_signal(signal.SIGSTOP)  # so that it starts no other guard
    guard.kill()
    fleet.stop("doomed", signal.SIGKILL)
    found_by_cookie = {name: process for name, process in processes.items() if name != "nameless"}
    assert alive(found_by_cookie) == list(found_by_cookie)
    workspaces = fleet.settings.workspaces_dir
    assert list(workspaces.glob("*-1-1-*"))
    fleet.start_worker("heir")
    wait_until_gone(found_by_cookie, timeout_seconds=30)
    wait_until(lambda: not list(workspaces.glob("*-1-1-*")), "its workspace is removed too")
    if alive(processes):  # nothing marks it any more: an emptied environment, and the session's number may be anybody's
        processes["nameless"].kill()


def test_a_killed_dispatcher_leaves_no_check(fleet: TestFleet, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    folder = tmp_path / "pids"
    fleet.start_dispatcher("doomed")
    fleet.start_worker()
    check = f"test -e {folder} || {{ mkdir {folder}; {escaping_command(folder)}; }}"
    plan = {"title": "Check", "repo": str(repository), "group_checks": check, "subtasks": [shell(1, "echo x > x")]}
    job_id = fleet.submit(plan)
    processes = escaped_processes(folder)
    fleet.stop("doomed", signal.SIGKILL)
    processes.pop("nameless").kill()  # only the worker's guard knows sessions
    wait_until_gone(processes, timeout_seconds=GONE_SECONDS)
    left = [path for path in fleet.settings.workspaces_dir.iterdir() if path.name.startswith(f"{job_id}-merge")]
    assert left, "its workspace stays behind"
    fleet.start_dispatcher("heir")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert not any(path.exists() for path in left), "a machine with dispatchers alone has nobody else to remove it"


def test_a_cookie_tells_whether_its_worker_lives() -> None:
    namespace, pid, start_ticks = owner_of_this_process().split("-")
    assert not is_orphaned(f"{namespace}-{pid}-{start_ticks}.7")
    assert is_orphaned(f"{namespace}-{pid}-{int(start_ticks) - 1}.7"), "the number was given to another process"
    assert not is_orphaned(f"1-{pid}-{int(start_ticks) - 1}.7"), "another container's numbers mean nothing here"
    assert not is_orphaned("somebody's own value")


def test_the_guard_is_small(fleet: TestFleet) -> None:
    guard = guard_of(fleet.start_worker())
    wait_until(
        lambda: guard.status() == psutil.STATUS_SLEEPING and guard.memory_full_info().pss > 5 * 2**20, "it waits"
    )
    assert guard.memory_full_info().pss < 12 * 2**20
    assert COOKIE_VARIABLE not in guard.environ()
    assert os.getsid(guard.pid) == guard.pid
    assert Path(guard.exe()).resolve() == Path(sys.executable).resolve()
