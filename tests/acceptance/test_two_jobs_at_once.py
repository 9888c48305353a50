"""Two jobs at once on one dispatcher and two workers: limits, order, merges, and what Flower shows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository, shell
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

GROUPS, SIZE = 3, 20


def counting_plan(repository: Path, diary: Path, limit: int) -> dict[str, Any]:
    """3 groups of 20 agents; each writes its own start and end into the diary, and a file of its own.

    The first ones wait for each other: however slow the machine is, as many as the limit allows are seen at once.
    """
    command = (
        f'echo "+ $(date +%s%N)" >> {diary}; until [ $(grep -c "^+" {diary}) -ge {limit} ]; do sleep 0.05; done; sleep 0.1; '
        f"echo $ORCHESTRATOR_SUBTASK > $ORCHESTRATOR_SUBTASK.txt; "
        f'echo "- $(date +%s%N)" >> {diary}'
    )
    return {
        "title": f"At most {limit}",
        "repo": str(repository),
        "max_parallel_agents": limit,
        "subtasks": [shell(n, command, group=1 + (n - 1) // SIZE) for n in range(1, GROUPS * SIZE + 1)],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def most_at_once(diary: Path) -> int:
    at_once = most = 0
    for line in sorted(diary.read_text().splitlines(), key=lambda line: line.split()[1]):
        at_once += 1 if line.startswith("+") else -1
        most = max(most, at_once)
    return most


def ask_flower(port: int, path: str, login: str | None) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if login:
        request.add_header("Authorization", "Basic " + b64encode(login.encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def flower(fleet: TestFleet) -> Any:
    """Flower behind a login; its port. It sees only what happens while it runs."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "workers.app", "flower"),
            *("--address=127.0.0.1", f"--port={port}", "--basic-auth=user:secret"),
        ],
        env={**os.environ, **fleet.variables()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers() -> bool:
        try:
            return bool(ask_flower(port, "/api/workers?refresh=true", "user:secret"))
        except OSError:
            return False

    wait_until(answers, "Flower lists a worker", timeout_seconds=60)
    yield port
    process.terminate()
    process.wait(timeout=20)


def test_limits_hold_results_are_whole_and_flower_names_every_agent(
    fleet: TestFleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fleet.start_dispatcher()
    fleet.start_worker("worker-a", slots=8)
    fleet.start_worker("worker-b", slots=8)
    port = request.getfixturevalue("flower")
    repository = new_repository(tmp_path / "repository")
    limits = {7: tmp_path / "seven", 4: tmp_path / "four"}
    jobs = {limit: fleet.submit(counting_plan(repository, diary, limit)) for limit, diary in limits.items()}

    for limit, job_id in jobs.items():
        job = fleet.wait_for_end(job_id, timeout_seconds=300)
        assert (job["status"], job["error"]) == ("completed", None)
        assert most_at_once(limits[limit]) == limit
        assert len(limits[limit].read_text().splitlines()) == 2 * GROUPS * SIZE, "an agent ran twice, or not at all"
        runs = fleet.rows("SELECT * FROM group_runs WHERE job_id = :id ORDER BY group_number", id=job_id)
        assert [(run["woken_by"], run["num_agents"]) for run in runs] == [("callback", SIZE)] * GROUPS
        files = git(repository, "ls-tree", "--name-only", f"orchestrator/{job_id}").split()
        assert sorted(files) == sorted(["README", *(f"{n}.txt" for n in range(1, GROUPS * SIZE + 1))])
    workers = fleet.rows("SELECT DISTINCT worker FROM attempts ORDER BY worker")
    assert [row["worker"] for row in workers] == ["worker-a@test", "worker-b@test"]
    assert fleet.rows("SELECT * FROM outbox") == []

    lines = {
        task["args"] for task in ask_flower(port, "/api/tasks?taskname=orchestrator.run_agent", "user:secret").values()
    }
    expected = {
        f"{job_id[:6]} · group {1 + (n - 1) // SIZE} · #{n} Step {n} · shell"
        for job_id in jobs.values()
        for n in range(1, GROUPS * SIZE + 1)
    }
    assert expected <= lines
    with pytest.raises(OSError, match="401"):
        ask_flower(port, "/api/tasks", None)
