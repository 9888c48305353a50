"""Who holds the addresses of the fleet can't be read by the agents that share its account.

Everything here runs under a plain account: root may read every process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from orchestrator.redaction import passwords_of
from tests.support.accounts import becoming, plain_account
from tests.support.command_line import ROOT_OF_THE_PROJECT
from tests.support.fleet import open_fleet
from tests.support.repositories import shell
from tests.support.services import Services, open_temporary_folder
from tests.support.waiting import wait_until

SECRET = "hunter2-hunter2"
OURS = [sys.executable, "-P", "-m"]
ADDRESSES = {
    "ORCHESTRATOR_BROKER_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    "ORCHESTRATOR_DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:1/x",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the plain account may write to."""
    made = open_temporary_folder()
    give_away(made)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def give_away(path: Path) -> None:
    os.chown(path, plain_account().uid, plain_account().gid)


def start(command: Sequence[str], folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT_OF_THE_PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [*becoming(plain_account()), *command],
        cwd=folder,
        env={**own, "HOME": str(folder), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def look(*command: str) -> subprocess.CompletedProcess[str]:
    """What a program under the same account gets to see."""
    return subprocess.run(
        [*becoming(plain_account()), *command], cwd="/", capture_output=True, text=True, check=False, timeout=60
    )


def runs(process: psutil.Process, program: str) -> bool:
    """Whether it has become that program, under the plain account, and lives."""
    lives = process.status() != psutil.STATUS_ZOMBIE
    return lives and process.uids().real == plain_account().uid and "".join(process.cmdline()[:1]).endswith(program)


def is_closed(pid: int) -> bool:
    tries = [["cat", f"/proc/{pid}/environ"], ["cat", f"/proc/{pid}/maps"], ["readlink", f"/proc/{pid}/fd/0"]]
    return all(look(*words).returncode != 0 for words in tries)


@pytest.mark.parametrize(
    "command",
    [
        ["orchestrator", "doctor"],
        ["workers.node", "worker"],
        ["workers.node", "dispatcher"],
        ["workers.flower", "--address=127.0.0.1", "--port=0"],
        ["celery", "-A", "workers.app", "worker", "--pool", "threads"],
    ],
    ids=" ".join,
)
def test_a_process_with_the_addresses_is_closed(
    command: list[str], folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    open_one, ours = start(["sleep", "60"], folder, **ADDRESSES), start([*OURS, *command], folder, **ADDRESSES)
    started += [open_one, ours]
    process = psutil.Process(ours.pid)
    wait_until(lambda: runs(psutil.Process(open_one.pid), "sleep"), "an ordinary process runs")
    wait_until(lambda: runs(process, sys.executable), "our process runs")
    assert SECRET in look("cat", f"/proc/{open_one.pid}/environ").stdout
    wait_until(lambda: is_closed(ours.pid), "it is closed")
    assert runs(process, sys.executable), "it was looked at while it ran"


def test_what_a_keeper_starts_is_closed(folder: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """The keeper, and what is forked: the embedded stack under a plain account, with a worker that can do its work."""
    started.append(start([*OURS, "orchestrator", "up", "--no-flower"], folder, ORCHESTRATOR_STATE_DIR=str(folder)))
    log = folder / "log" / "worker-1.log"
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the worker is ready", timeout_seconds=120)
    up = psutil.Process(started[0].pid)
    below = up.children(recursive=True)
    assert {"worker", "dispatcher", "postgres"} <= {process.name() for process in below}
    ours = [process for process in (up, *below) if "-P" in process.cmdline()]
    assert len(ours) == 5, "the command, the keeper, the fork server and what it has forked"
    assert [process.cmdline() for process in ours if not is_closed(process.pid)] == []
    started[0].send_signal(signal.SIGTERM)
    started[0].wait(timeout=60)
    assert [process for process in below if process.is_running()] == []


IN_A_CONTAINER = """
import os, signal, sys, time
def others():
    return set(open("/proc/1/task/1/children").read().split()) - {str(os.getpid())}
print("secret" if "SECRET" in os.environ else "no secret", repr(open("/proc/1/environ").read()), os.getppid(), flush=True)
wait, go = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(wait, 1)
    os._exit(0)
os.wait()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
seen = others()
os.write(go, b"!")
while others():
    time.sleep(0.01)
print(len(seen), "reaped", flush=True)
signal.pause()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process namespace with its own /proc")
def test_process_1_of_a_container_has_no_variables(folder: Path) -> None:
    """It is an init: it reaps, passes signals on, and ends as the process of the fleet ends."""
    become = f"from orchestrator.cli.processes import Process, become; become(Process(('-c', {IN_A_CONTAINER!r})))"
    own_processes = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    container = subprocess.Popen(
        [*own_processes, *becoming(plain_account()), sys.executable, "-P", "-c", become],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    with container:
        assert container.stdout is not None
        assert [container.stdout.readline(), container.stdout.readline()] == ["secret '' 1\n", "1 reaped\n"]
        [init] = psutil.Process(container.pid).children()
        init.terminate()
    assert container.returncode == 7


def test_an_agent_finds_no_password_of_the_fleet(
    services: Services, database: str, broker: str, folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """Through the whole system: a worker and a dispatcher as they are started on a machine, and an agent that looks."""
    for socket in (services.postgres.server.sockets, *services.postgres.server.sockets.iterdir()):
        socket.chmod(0o777)
    services.redis.server.socket.chmod(0o777)
    passwords = [word for url in (database, broker) for word in passwords_of(url)]
    assert len(passwords) == 2
    words = folder / "words"
    words.write_text("\n".join(passwords))
    fleet = open_fleet(database, broker, folder)
    try:
        started.append(start(["sleep", "600"], folder, **fleet.variables()))
        started += [
            start([*OURS, "orchestrator", role], folder, **fleet.variables()) for role in ("worker", "dispatcher")
        ]
        files = "/proc/[0-9]*/environ /proc/[0-9]*/task/[0-9]*/environ /proc/[0-9]*/cmdline"
        look_around = f"grep -l -a -F -f {words} {files} > {folder}/seen || true"
        job_id = fleet.submit({"title": "Look", "subtasks": [shell(1, look_around)]})
        assert fleet.wait_for_end(job_id)["status"] == "completed"
    finally:
        fleet.close()
    seen = (folder / "seen").read_text()
    assert {int(line.split("/")[2]) for line in seen.splitlines()} == {started[0].pid}
