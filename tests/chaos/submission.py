"""The job comes in as a user's would, from a process that may be killed in the midst of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

from orchestrator.fault_points import FOLDER_VARIABLE
from tests.chaos.world import World

KEY: Final = "chaos"
TRIES: Final = 5


def submit_job(world: World) -> str:
    """Run `orchestrator submit` until it has said the job's id, as who was cut off would: again, with the same key."""
    plan = world.write_plan()
    for _ in range(TRIES):
        tried = subprocess.run(
            [
                sys.executable,
                "-m",
                "orchestrator",
                *("submit", str(plan), "--idempotency-key", KEY, "--json"),
            ],
            env={**os.environ, **world.fleet.variables(), FOLDER_VARIABLE: str(world.points.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if tried.returncode == 0:
            break
    else:
        raise AssertionError(f"the plan could not be submitted: {tried.stderr}")
    (job,) = world.fleet.rows("SELECT id FROM jobs")
    said = json.loads(tried.stdout)["job_id"]
    assert said == job["id"], f"`submit` says {said}, stored is {job['id']}"
    return str(said)
