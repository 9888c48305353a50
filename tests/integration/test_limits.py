"""An attempt that is over a limit ends with its whole tree, as `resource_limit`, and says what it used."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.process_tree import find_by_cookie
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell

pytestmark = pytest.mark.stack


def python(program: str) -> str:
    return shlex.join([sys.executable, "-I", "-S", "-c", program])


HOG = python("hog = bytearray(300 * 2**20); import time; time.sleep(600)")
SHARED_BY_FORKS = python("import os, time; hog = bytearray(120 * 2**20); os.fork(); os.fork(); time.sleep(4)")
BURN = python("while True: pass")


def run_one(fleet: TestFleet, command: str, **more: Any) -> dict[str, Any]:
    """The only attempt at a subtask with this command."""
    plan = {"title": "Limits", "max_retries": 3, "subtasks": [shell(1, command, **more)]}
    job_id = fleet.submit(plan)
    fleet.wait_for_end(job_id)
    (attempt,) = fleet.rows("SELECT * FROM attempts WHERE job_id = :id", id=job_id)
    return attempt


@pytest.mark.parametrize(
    ("command", "limits", "words"),
    [
        (f"setsid --wait {HOG}", {"memory": "150MiB"}, r"used [1-3]\d\d\.\d MiB of memory, the limit is 150\.0 MiB"),
        (f"{BURN} & {BURN} & wait", {"cpu_seconds": 2}, r"used \S+ s of processor time, the limit is 2 s"),
        (
            "for n in $(seq 40); do sleep 600 & done; wait",
            {"processes": 20},
            r"had [2-4]\d processes and threads at once, the limit is 20",
        ),
    ],
    ids=["memory", "cpu", "processes"],
)
def test_over_a_limit(
    shared_fleet: TestFleet, command: str, limits: dict[str, Any], words: str, tmp_path: Path
) -> None:
    attempt = run_one(shared_fleet, f'echo "$ORCHESTRATOR_ATTEMPT" > {tmp_path}/cookie; {command}', limits=limits)
    assert attempt["status"] == "resource_limit"
    assert re.fullmatch(words, attempt["error"])
    assert find_by_cookie((tmp_path / "cookie").read_text().strip()) == []


def test_memory_that_forked_processes_share_counts_once(shared_fleet: TestFleet) -> None:
    attempt = run_one(shared_fleet, SHARED_BY_FORKS, limits={"memory": "250MiB"})
    assert (attempt["status"], attempt["error"]) == ("completed", None)


def test_the_check_is_bound_by_the_same_limits(shared_fleet: TestFleet) -> None:
    attempt = run_one(shared_fleet, "true", check=HOG, limits={"memory": "150MiB"})
    assert attempt["status"] == "resource_limit"
    assert "of memory, the limit is 150.0 MiB" in attempt["error"]


def test_output_and_disk_are_bound_by_settings(database: str, broker: str, tmp_path: Path) -> None:
    fleet = open_fleet(database, broker, tmp_path, max_output_bytes=2**20, max_workspace_bytes=8 * 2**20)
    try:
        fleet.start_dispatcher()
        fleet.start_worker()
        loud = run_one(fleet, "yes")
        assert loud["status"] == "resource_limit"
        assert re.fullmatch(r"wrote 1\.\d MiB of output, the limit is 1\.0 MiB", loud["error"])
        large = run_one(fleet, "mkdir -p a/b; head -c 20M /dev/urandom > a/b/large; sleep 600")
        assert large["status"] == "resource_limit"
        used = re.fullmatch(r"filled its workspace with ([\d.]+) MiB, the limit is 8\.0 MiB", large["error"])
        assert used
        assert 8 < float(used[1]) <= 21, "it is seen while it grows, or after"
        within = run_one(fleet, "head -c 2M /dev/urandom > small; seq 1000; sleep 3")
        assert within["status"] == "completed"
    finally:
        fleet.close()
