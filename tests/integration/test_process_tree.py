"""Every process that an agent started is found and ended, also those that do not want to be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator import process_list
from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import end_tree, find_by_cookie, kill_trees
from tests.support.accounts import becoming, plain_account
from tests.support.supervision import is_alive, new_cookie
from tests.support.waiting import wait_until

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("daemon.pid", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600 if sys.argv[1] == "stay" else 0)
"""

MOVING_TARGET = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(300):  # each generation ends as soon as it has a child: the pid to kill is always another one
    if os.fork():
        os._exit(0)
    time.sleep(0.1)
"""


@pytest.fixture
def cookie() -> Iterator[str]:
    name = new_cookie()
    yield name
    kill_trees(lambda carried: carried.startswith(name))


def start(program: str, *arguments: str, cookie: str, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, *arguments],
        cwd=cwd,
        env={**os.environ, COOKIE_VARIABLE: cookie},
        start_new_session=True,
    )


def daemon_pid(folder: Path) -> int:
    file = folder / "daemon.pid"
    wait_until(lambda: file.exists() and file.read_text(), "the daemon runs")
    return int(file.read_text())


def test_a_daemon_is_found_by_its_cookie(cookie: str, tmp_path: Path) -> None:
    process = start(DAEMON, "leave", cookie=cookie, cwd=tmp_path)
    pid = daemon_pid(tmp_path)
    process.wait()
    assert psutil.Process(pid).ppid() != process.pid
    assert find_by_cookie(cookie) == [pid]
    assert find_by_cookie(cookie[:-1]) == []


def test_a_tree_ends_with_its_daemon_and_the_rest_lives_on(cookie: str, tmp_path: Path) -> None:
    other_cookie = new_cookie()
    other = start("import time; time.sleep(600)", cookie=other_cookie, cwd=tmp_path)
    process = start(DAEMON, "stay", cookie=cookie, cwd=tmp_path)
    pid = daemon_pid(tmp_path)
    assert end_tree(process.pid, cookie=cookie, grace_seconds=0.1) == []
    assert process.wait() == -15
    assert not is_alive(pid)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_child_with_an_emptied_environment_is_found_through_its_session(cookie: str, tmp_path: Path) -> None:
    process = start(
        "import subprocess; p = subprocess.Popen(['sleep', '600'], env={}); open('daemon.pid', 'w').write(str(p.pid))",
        cookie=cookie,
        cwd=tmp_path,
    )
    pid = daemon_pid(tmp_path)
    wait_until(lambda: not is_alive(process.pid), "the parent has ended")
    assert end_tree(process.pid, cookie=cookie, grace_seconds=10) == []  # before the wait: the number is still ours
    process.wait()
    assert not is_alive(pid)


def test_a_tree_gets_its_grace_and_no_more_than_it_needs(cookie: str, tmp_path: Path) -> None:
    process = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open('last-words', 'w').write('x'), sys.exit(7)))\n"
        "open('daemon.pid', 'w').write('1')\n"
        "time.sleep(600)",
        cookie=cookie,
        cwd=tmp_path,
    )
    daemon_pid(tmp_path)
    assert end_tree(process.pid, cookie=cookie, grace_seconds=3600) == []
    assert process.wait() == 7
    assert (tmp_path / "last-words").exists()


def test_a_process_that_moves_on_to_a_child_again_and_again_is_ended(cookie: str, tmp_path: Path) -> None:
    process = start(MOVING_TARGET, cookie=cookie, cwd=tmp_path)
    process.wait()
    wait_until(lambda: find_by_cookie(cookie), "the second generation runs")
    assert end_tree(None, cookie=cookie, grace_seconds=0) == []
    assert find_by_cookie(cookie) == []


def test_whoever_carries_the_cookie_never_ends_itself_or_its_ancestors(cookie: str, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "inner = 'from orchestrator.process_tree import end_tree; import sys;'\n"
        "inner += f'print(end_tree(None, cookie={sys.argv[1]!r}, grace_seconds=5))'\n"
        "assert subprocess.run([sys.argv[2], '-c', inner], stdout=-1).stdout == b'[]\\n'\n"
        "assert child.wait() == -15\n"
    )
    process = start(program, cookie, sys.executable, cookie=cookie, cwd=tmp_path)
    assert process.wait() == 0


def test_all_trees_that_a_rule_names_are_killed_at_once(cookie: str, tmp_path: Path) -> None:
    processes = [start("import time; time.sleep(600)", cookie=f"{cookie}-{n}", cwd=tmp_path) for n in range(3)]
    wait_until(lambda: all(find_by_cookie(f"{cookie}-{n}") for n in range(3)), "all three run")
    assert kill_trees(lambda carried: carried.startswith(f"{cookie}-")) == []
    assert [process.wait() for process in processes] == [-9, -9, -9]


HIDDEN_WORKER = """
import os, signal, sys, time
from orchestrator.closed_process import close_to_others
from orchestrator.process_list import read_process
from orchestrator.process_tree import is_orphaned, owner_of_this_process
heard, tell = os.pipe()
pid = os.fork()
if pid == 0:
    close_to_others()
    os.write(tell, owner_of_this_process().encode())
    time.sleep(600)
cookie = os.read(heard, 200).decode() + ".1"
try:
    assert read_process(pid) is None, "it is hidden"
    assert not is_orphaned(cookie), "it lives"
finally:
    os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
assert is_orphaned(cookie), "it is dead"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount /proc")
def test_a_worker_that_proc_hides_is_not_taken_for_dead(tmp_path: Path) -> None:
    """With `hidepid` a worker that is closed to others is not to be seen by those of its own account."""
    own_proc = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "sh",
        "-c",
        'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
        "sh",
    ]
    program = [sys.executable, "-P", "-c", HIDDEN_WORKER]
    command = [*own_proc, *becoming(plain_account()), *program]
    done = subprocess.run(command, check=False, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_that_ask_at_the_same_time_share_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    asking: list[int] = []
    readings: list[int] = []

    def read_slowly(known: object) -> tuple[list[object], dict[object, object]]:
        readings.append(len(asking))
        wait_until(lambda: len(asking) == 20, "all threads ask")
        return [], {}

    def ask() -> None:
        asking.append(1)
        assert find_by_cookie("a cookie") == []

    monkeypatch.setattr(process_list, "_scan", read_slowly)
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 <= len(readings) <= 10


def test_nothing_left_is_cheap(cookie: str) -> None:
    processes = len(psutil.pids())
    start_of_cpu = time.process_time()
    for _ in range(10):
        assert end_tree(None, cookie=cookie, grace_seconds=3600) == []
    # CPU, not wall clock: two scans of some 30 µs a process; a hundredfold of that would be a defect.
    assert time.process_time() - start_of_cpu < 10 * 2 * processes * 0.003
