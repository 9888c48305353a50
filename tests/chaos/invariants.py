"""What must hold after a run, whatever happened in it. Each check gives its complaints; none means that all is well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import psutil

from orchestrator.process_list import COOKIE_VARIABLE
from tests.chaos.world import AT_ONCE, GROUPS, SIZE, World
from tests.support.repositories import git

FREE_REPEATS: Final = ("worker_lost", "interrupted")
"""Outcomes that are nobody's failure: the fleet's own faults, which cost another run of the agent."""


def complaints(world: World, job_id: str) -> Iterator[str]:
    """Everything that is wrong after the job's end, with the fleet still up."""
    yield from _job_is_completed(world, job_id)
    yield from _one_winner_each(world, job_id)
    yield from _branch_holds_each_change_once(world, job_id)
    yield from _agents_ran_as_often_as_recorded(world, job_id)
    yield from _never_too_many(world, job_id)
    yield from _times_are_in_order(world, job_id)
    if world.fleet.rows("SELECT 1 FROM outbox WHERE job_id = :id", id=job_id):
        yield "the outbox still owes something for a final job"


def leftovers(world: World) -> Iterator[str]:
    """What is still there after every process of the fleet was asked to stop."""
    for process in psutil.process_iter():
        try:
            if COOKIE_VARIABLE in process.environ() and process.cwd().startswith(str(world.fleet.folder)):
                yield f"process {process.pid} of an attempt lives on: {process.cmdline()}"
        except (psutil.Error, OSError):
            continue


def _job_is_completed(world: World, job_id: str) -> Iterator[str]:
    job = world.fleet.job(job_id)
    if job["status"] != "completed":
        yield f"the job is {job['status']}: {job['reason']}, {job['error']}"


def _one_winner_each(world: World, job_id: str) -> Iterator[str]:
    rows = world.fleet.rows(
        "SELECT subtask_id, count(*) FILTER (WHERE status = 'completed') AS winners,"
        " count(*) FILTER (WHERE status = 'running') AS running"
        " FROM attempts WHERE job_id = :id GROUP BY subtask_id",
        id=job_id,
    )
    if len(rows) != GROUPS * SIZE:
        yield f"{len(rows)} subtasks have attempts, not {GROUPS * SIZE}"
    for row in rows:
        if row["winners"] != 1 or row["running"]:
            yield f"subtask {row['subtask_id']} has {row['winners']} winners, {row['running']} running attempts"


def _branch_holds_each_change_once(world: World, job_id: str) -> Iterator[str]:
    branch = f"orchestrator/{job_id}"
    subjects = git(world.repository, "log", "--first-parent", "--format=%s", branch).splitlines()
    expected = [f"Merge subtask {n}: Step {n}" for n in range(GROUPS * SIZE, 0, -1)] + ["change"]
    if subjects != expected:
        yield f"the branch's history is {subjects}"
    files = {
        name: git(world.repository, "show", f"{branch}:{name}")
        for name in git(world.repository, "ls-tree", "--name-only", branch).split()
    }
    if files != {"README": "hello\n"} | {f"{n}.txt": f"{n}\n" for n in range(1, GROUPS * SIZE + 1)}:
        yield f"the branch holds {sorted(files)}"


def _agents_ran_as_often_as_recorded(world: World, job_id: str) -> Iterator[str]:
    """An agent runs once for each recorded attempt, and never twice for one."""
    attempts = world.fleet.rows("SELECT subtask_id, number, status FROM attempts WHERE job_id = :id", id=job_id)
    recorded = {(row["subtask_id"], row["number"]): row["status"] for row in attempts}
    starts: dict[tuple[int, int], int] = defaultdict(int)
    for line in world.diary.read_text().splitlines():
        mark, subtask_id, number, _ = line.split()
        if mark == "+":
            starts[int(subtask_id), int(number)] += 1
    for key, times in starts.items():
        if times > 1:
            yield f"attempt {key} started its agent {times} times"
        if key not in recorded:
            yield f"attempt {key} ran and is not recorded"
    for subtask_id in {row["subtask_id"] for row in attempts}:
        repeats = [row for row in attempts if row["subtask_id"] == subtask_id and row["status"] != "completed"]
        unexplained = [row["status"] for row in repeats if row["status"] not in (*FREE_REPEATS, "failed")]
        if unexplained:
            yield f"subtask {subtask_id} had attempts that ended as {unexplained}"


def _never_too_many(world: World, job_id: str) -> Iterator[str]:
    """Recorded attempts never overlap beyond the limit; those whose worker was lost end when that was noticed."""
    rows = world.fleet.rows("SELECT started_at, finished_at FROM attempts WHERE job_id = :id", id=job_id)
    moments = sorted([(row["started_at"], 1) for row in rows] + [(row["finished_at"], -1) for row in rows])
    at_once = 0
    for _, change in moments:
        at_once += change
        if at_once > AT_ONCE:
            yield f"{at_once} attempts at once, the limit is {AT_ONCE}"
            return


def _times_are_in_order(world: World, job_id: str) -> Iterator[str]:
    job = world.fleet.job(job_id)
    for row in world.fleet.rows("SELECT * FROM attempts WHERE job_id = :id", id=job_id):
        if not job["started_at"] <= row["started_at"] <= row["finished_at"] <= job["finished_at"]:
            yield f"attempt {row['subtask_id']}.{row['number']} lies outside of its job's time"
    groups = world.fleet.rows("SELECT * FROM groups WHERE job_id = :id ORDER BY number", id=job_id)
    for earlier, later in pairwise(groups):
        if earlier["finished_at"] > later["started_at"]:
            yield f"group {later['number']} started before group {earlier['number']} ended"
