"""Where a control group is delegated to workers nothing escapes them: no session, no environment, no parent is needed."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator import control_group
from orchestrator.accounts import agent_account
from orchestrator.plan.model import Limits
from orchestrator.supervisor import StopSignal, supervise
from tests.support.escaped import wait_until_gone
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell
from tests.support.services import open_temporary_folder
from tests.support.supervision import new_cookie
from tests.support.waiting import wait_until
from workers.limits import LimitsKeeper, Meter

pytestmark = pytest.mark.stack

_VANISH = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
"""


def vanishing_command(file: Path) -> str:
    """Leaves a process without cookie, in a session of its own, whose parent has ended; its number goes into `file`."""
    return shlex.join([sys.executable, "-I", "-S", "-c", _VANISH, str(file)])


def vanished(file: Path) -> dict[str, psutil.Process]:
    number = wait_until(lambda: file.exists() and file.read_text(), "the process has left")
    return {"vanished": psutil.Process(int(number))}


@pytest.fixture
def base() -> Iterator[str]:
    """A group of the test's own, as an administrator would delegate it; skips where none can be made."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    folder = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if folder is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")
    group = folder / f"orchestrator-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"groups can't be made here: {error}")
    yield str(group)
    control_group.kill(str(group))
    assert control_group.remove(str(group))


@pytest.fixture
def fleet_in_group(base: str, database: str, broker: str, tmp_path: Path) -> Iterator[TestFleet]:
    fleet = open_fleet(database, broker, tmp_path, cgroup=base)
    fleet.start_dispatcher()
    yield fleet
    fleet.close()


def groups(base: str) -> list[str]:
    return [name for name, _ in control_group.groups_in(base)]


def test_what_left_every_tree_ends_with_its_attempt(fleet_in_group: TestFleet, base: str, tmp_path: Path) -> None:
    fleet, file = fleet_in_group, tmp_path / "pid"
    fleet.start_worker()
    job_id = fleet.submit({"title": "Vanish", "subtasks": [shell(1, vanishing_command(file))]})
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    wait_until_gone(vanished(file), timeout_seconds=0.1)
    wait_until(lambda: groups(base) == [], "the attempt's group is removed")


def test_the_guard_of_a_killed_worker_ends_its_groups(fleet_in_group: TestFleet, base: str, tmp_path: Path) -> None:
    fleet, file = fleet_in_group, tmp_path / "pid"
    fleet.start_worker("doomed")
    fleet.submit({"title": "Kill", "subtasks": [shell(1, f"{vanishing_command(file)}; sleep 600")]})
    processes = vanished(file)
    fleet.stop("doomed", signal.SIGKILL)
    wait_until_gone(processes, timeout_seconds=5)
    wait_until(lambda: groups(base) == [], "its groups are removed")


@pytest.mark.parametrize("heir", ["worker", "dispatcher"])
def test_whoever_starts_next_ends_the_groups_of_a_worker_that_died_with_its_guard(
    fleet_in_group: TestFleet, base: str, tmp_path: Path, heir: str
) -> None:
    fleet, file = fleet_in_group, tmp_path / "pid"
    worker = fleet.start_worker("doomed")
    fleet.submit({"title": "Kill", "subtasks": [shell(1, f"{vanishing_command(file)}; sleep 600")]})
    processes = vanished(file)
    worker.send_signal(signal.SIGSTOP)  # so that it starts no other guard
    guards = [child for child in psutil.Process(worker.pid).children() if "guard_program.py" in str(child.cmdline())]
    for guard in guards:
        guard.kill()
    fleet.stop("doomed", signal.SIGKILL)
    assert processes["vanished"].is_running()
    (abandoned,) = groups(base)
    if heir == "worker":
        fleet.start_worker("heir")
    else:
        fleet.start_dispatcher("heir")
    wait_until_gone(processes, timeout_seconds=30)
    wait_until(lambda: abandoned not in groups(base), "the abandoned group is removed")


def test_a_missing_program_is_missing_there_too(base: str, tmp_path: Path) -> None:
    group = control_group.make(base, "1-1-1.1", memory_bytes=None, processes=None)
    with StopSignal() as stop, pytest.raises(FileNotFoundError) as caught:
        supervise(
            ["no-such-program"],
            cwd=tmp_path,
            env=dict(os.environ),
            timeout_seconds=10,
            idle_timeout_seconds=None,
            kill_grace_seconds=1,
            on_line=lambda *_: None,
            stop=stop,
            cookie="1-1-1.1",
            group=group,
        )
    assert caught.value.filename == "no-such-program"


def test_the_own_group_counts_only_when_it_was_delegated(base: str) -> None:
    program = (
        "import os, sys; from orchestrator import control_group\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
        "print(control_group.find_base(None))\n"
        "os.setxattr(sys.argv[1], 'user.delegate', b'1')\n"
        "print(control_group.find_base(None))\n"
    )
    said = subprocess.run([sys.executable, "-c", program, base], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["None", base]


def test_a_group_that_can_not_be_used_is_an_error_in_words(fleet: TestFleet, tmp_path: Path) -> None:
    worker = fleet.start_worker(ORCHESTRATOR_CGROUP=str(tmp_path / "no-group"))
    assert worker.wait(timeout=60) != 0
    said = (tmp_path / "worker.log").read_text()
    assert "no-group can't be used" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("controller", "subtask", "words"),
    [
        (
            "memory",
            shell(1, "head -c 300M /dev/zero | tail -c 300M | wc -c", limits={"memory": "100MiB"}),
            "of memory, the limit is 100.0 MiB",
        ),
        (
            "pids",
            shell(1, "for n in $(seq 40); do sleep 600 & done; wait", limits={"processes": 20}),
            "wanted more than 20 processes",
        ),
    ],
)
def test_the_kernel_enforces_limits(
    fleet_in_group: TestFleet, base: str, controller: str, subtask: dict[str, object], words: str
) -> None:
    if controller not in Path(base, "cgroup.controllers").read_text().split():
        pytest.skip(f"the controller {controller} belongs to another hierarchy here")
    fleet_in_group.start_worker()
    job_id = fleet_in_group.submit({"title": "Limits", "subtasks": [subtask]})
    fleet_in_group.wait_for_end(job_id)
    (attempt,) = fleet_in_group.rows("SELECT status, error FROM attempts WHERE job_id = :id", id=job_id)
    assert attempt["status"] == "resource_limit"
    assert words in attempt["error"]


@pytest.mark.parametrize(
    ("controller", "command", "limits", "words"),
    [
        (
            "memory",
            "head -c 300M /dev/zero | tail -c 300M | wc -c",
            Limits(memory="100MiB", processes=None),
            "of memory, the limit is 100.0 MiB",
        ),
        (
            "pids",
            "for n in $(seq 40); do sleep 600 & done; wait",
            Limits(memory=None, processes=20),
            "wanted more than 20 processes",
        ),
    ],
)
def test_the_kernels_verdict_is_the_reason_of_the_end(
    base: str, tmp_path: Path, controller: str, command: str, limits: Limits, words: str
) -> None:
    """Without a fleet, so that it runs on any kernel that has the controllers, however slow."""
    if controller not in Path(base, "cgroup.controllers").read_text().split():
        pytest.skip(f"the controller {controller} belongs to another hierarchy here")
    assert control_group.find_base(base) == base
    group = control_group.make(base, "cookie", memory_bytes=limits.memory_bytes, processes=limits.processes)
    keeper = LimitsKeeper()
    with StopSignal() as stop:
        meter = Meter("cookie", limits, stop, group=group)

        @contextmanager
        def oversee(pid: int) -> Iterator[None]:
            meter.sessions.add(pid)
            yield
            meter.look_back()

        with keeper.watching(meter):
            supervise(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=dict(os.environ),
                timeout_seconds=100,
                idle_timeout_seconds=None,
                kill_grace_seconds=1.0,
                on_line=lambda *_: None,
                stop=stop,
                cookie="cookie",
                group=group,
                oversee=oversee,
            )
        assert stop.reason is not None
        assert words in stop.reason
    assert control_group.members(group) == []
    keeper.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a program under another account")
def test_a_program_of_another_account_enters_the_group_and_the_door_is_closed_behind_it(base: str) -> None:
    lines: list[str] = []
    cookie = new_cookie()
    group = control_group.make(base, cookie, memory_bytes=None, processes=None)
    folder = open_temporary_folder()
    (folder / "stdin").write_text("from the file\n")
    try:
        ending = supervise(
            ["sh", "-c", "id -un; cat; cat /proc/self/cgroup; ls -l /proc/self/fd"],
            cwd=Path("/"),
            env=dict(os.environ),
            timeout_seconds=60,
            idle_timeout_seconds=None,
            kill_grace_seconds=1,
            on_line=lambda _, line: lines.append(line),
            stop=StopSignal(),
            cookie=cookie,
            stdin_file=folder / "stdin",
            group=group,
            account=agent_account("nobody"),
        )
    finally:
        control_group.remove(group)
        shutil.rmtree(folder)
    assert ending.exit_code == 0, lines
    assert lines[:2] == ["nobody", "from the file"]
    assert any(line.endswith(f"/{cookie}") for line in lines)
    assert not any("cgroup.procs" in line for line in lines)
