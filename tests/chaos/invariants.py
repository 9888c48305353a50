"""What must hold after a run, whatever happened in it. Each check gives its complaints; none means that all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from tests.chaos.diary import overlaps, read_diary
from tests.chaos.faults_of_processes import ISLANDER
from tests.chaos.world import AT_ONCE, GRACE_SECONDS, GROUPS, SIZE, World
from tests.support.repositories import git

FREE_REPEATS: Final = ("worker_lost", "interrupted")
"""Ends that cost nothing where the agent had not begun: the fleet's own faults."""
GONE_SECONDS: Final = 5.0
"""After the recorded end of an attempt nothing of it lives longer."""
CUTS_OFF: Final = "one_way_partition"
"""The fault under which two agents may overlap: it cuts one worker off from the database."""


def complaints(world: World, job_id: str, fired: Collection[str], costs: Mapping[str, int]) -> Iterator[str]:
    """Everything that is wrong after the job's end, with the fleet still up. `fired` are the faults from outside that
    happened, `costs` how many ends of each kind all faults together excuse for agents that had begun."""
    unfinished = list(_job_is_completed(world, job_id))
    if unfinished:  # the rest speaks of a job that came to its end
        yield from unfinished
        return
    yield from _one_winner_each(world, job_id)
    yield from _branch_holds_each_change_once(world, job_id)
    yield from _who_goes_on_finds_what_it_remembers(world, job_id)
    yield from _each_merge_is_recorded_once(world, job_id)
    yield from _agents_ran_as_often_as_recorded(world, job_id, costs)
    yield from _agents_did_not_overlap(world, job_id, cut_off=CUTS_OFF in fired)
    yield from _agents_ended_with_their_attempts(world, job_id, cut_off=CUTS_OFF in fired)
    yield from _each_attempt_began_and_ended_once(world, job_id)
    yield from _never_too_many(world, job_id)
    yield from _times_are_in_order(world, job_id)
    yield from _nothing_happened_after_the_end(world, job_id)
    for job in world.fleet.rows("SELECT id, title, status FROM jobs WHERE finished_at IS NULL"):
        yield f"the job {job['title']} ({job['id']}) is {job['status']}"
    if owed := world.fleet.rows("SELECT job_id, message->>'task' AS task FROM outbox"):
        yield f"the outbox still owes {owed}, and every job is final"


def _job_is_completed(world: World, job_id: str) -> Iterator[str]:
    job = world.fleet.job(job_id)
    if job["status"] != "completed":
        yield f"the job is {job['status']}: {job['reason']}, {job['error']}"
    states = "SELECT status FROM groups WHERE job_id = :id UNION ALL SELECT status FROM subtasks WHERE job_id = :id"
    found = {row["status"] for row in world.fleet.rows(states, id=job_id)}
    if found != {"completed"}:
        yield f"groups and subtasks of the job are {sorted(found)}"


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
    """The winners' changes and nothing else: history, files, and what the files say of the attempt that wrote them."""
    branch = f"orchestrator/{job_id}"
    log = git(world.repository, "log", "--first-parent", "--format=%s", branch)
    expected = [f"Merge subtask {n}: Step {n}" for n in range(GROUPS * SIZE, 0, -1)] + ["change"]
    if log.splitlines() != expected:
        yield f"the branch's history is {log.splitlines()}"
    winners = {row["subtask_id"]: row for row in _attempts(world, job_id) if row["status"] == "completed"}
    files = {
        name: git(world.repository, "show", f"{branch}:{name}")
        for name in git(world.repository, "ls-tree", "-r", "--name-only", branch).split()
    }
    written = {f"{n}.txt": git(world.repository, "show", f"{row['commit']}:{n}.txt") for n, row in winners.items()}
    if files != {"README": "hello\n"} | written:
        yield f"the branch holds {files}, the winners wrote {written}"
    merged = git(world.repository, "log", "--first-parent", "--merges", "--format=%P", branch).splitlines()
    if sorted(line.split()[1] for line in merged) != sorted(row["commit"] for row in winners.values()):
        yield "what was merged is not what the winners are recorded with"
    head = git(world.repository, "rev-parse", branch).strip()
    if world.fleet.job(job_id)["head_commit"] != head:
        yield f"the branch is at {head}, its job says {world.fleet.job(job_id)['head_commit']}"


def _who_goes_on_finds_what_it_remembers(world: World, job_id: str) -> Iterator[str]:
    """A session comes with its work, and a winner's change is its own and that of the attempts which it went on from."""
    for life in read_diary(world.diary):
        if not life.finds_all:
            yield f"attempt {life.subtask_id}.{life.number} remembered work that was not there"
    attempts = {(row["subtask_id"], row["number"]): row for row in _attempts(world, job_id)}
    for (subtask_id, number), row in attempts.items():
        if row["status"] != "completed":
            continue
        chain = [number]
        while (earlier := attempts[subtask_id, chain[0]]["resumed_from"]) is not None:
            chain.insert(0, earlier)
        wrote = git(world.repository, "show", f"{row['commit']}:{subtask_id}.txt").splitlines()
        possible = [f"{subtask_id} {one}" for one in chain]
        if wrote[-1:] != possible[-1:] or wrote != [line for line in possible if line in wrote]:
            yield f"the winner of subtask {subtask_id} wrote {wrote}, and went on along {chain}"


def _each_merge_is_recorded_once(world: World, job_id: str) -> Iterator[str]:
    runs = world.fleet.rows("SELECT * FROM group_runs WHERE job_id = :id ORDER BY group_number", id=job_id)
    if [run["group_number"] for run in runs] != list(range(1, GROUPS + 1)):
        yield f"the group runs are of {[run['group_number'] for run in runs]}"
    for run in runs:
        if not run["success"] or run["woken_by"] is None or run["completed_at"] is None:
            yield f"the run of group {run['group_number']} is recorded as {run}"
    counts = world.fleet.rows(
        "SELECT name, group_number, count(*) AS times FROM events WHERE job_id = :id"
        " AND name IN ('job.submitted', 'job.started', 'job.finished', 'group.started', 'group.finished')"
        " GROUP BY name, group_number HAVING count(*) > 1",
        id=job_id,
    )
    for row in counts:
        yield f"{row['name']} of group {row['group_number']} was recorded {row['times']} times"


def _agents_ran_as_often_as_recorded(world: World, job_id: str, costs: Mapping[str, int]) -> Iterator[str]:
    """An agent runs once for each recorded attempt, and never twice for one; there is an attempt beyond the winner only
    where a fault took one away or made it fail, and no more of them than the faults can account for. So the runs of
    agents = subtasks + attempts whose worker was lost + retries by policy."""
    attempts = {row["id"]: row for row in _attempts(world, job_id)}
    ran = set()
    for life in read_diary(world.diary):
        attempt = attempts.get(life.attempt_id)
        if attempt is None or (attempt["subtask_id"], attempt["number"]) != (life.subtask_id, life.number):
            yield f"attempt {life.subtask_id}.{life.number} ran as {life.token} and is not recorded so"
        if life.starts != 1:
            yield f"attempt {life.subtask_id}.{life.number} started its agent {life.starts} times"
        ran.add(life.attempt_id)
    for attempt in attempts.values():
        name = f"attempt {attempt['subtask_id']}.{attempt['number']}"
        if attempt["status"] == "completed" and attempt["id"] not in ran:
            yield f"{name} completed and its agent never ran"
        excused = {*costs} if attempt["id"] in ran else {*costs, *FREE_REPEATS}
        if attempt["status"] not in {"completed", *excused}:
            whether = "ran" if attempt["id"] in ran else "did not run"
            yield f"{name} ended as {attempt['status']}, and no fault excuses it; its agent {whether}: {attempt['error']}"
    paid_again = Counter(
        row["status"] for row in attempts.values() if row["id"] in ran and row["status"] != "completed"
    )
    for end, count in paid_again.items():
        if count > costs.get(end, 0):
            yield f"{count} agents ended as {end}, and the faults account for {costs.get(end, 0)}"
    if len(ran) != GROUPS * SIZE + paid_again.total():
        yield f"{len(ran)} agents ran, for {GROUPS * SIZE} subtasks and {paid_again.total()} that were tried again"


def _agents_did_not_overlap(world: World, job_id: str, *, cut_off: bool) -> Iterator[str]:
    """But for one whose worker is cut off from the database."""
    on_the_island = {row["id"] for row in _attempts(world, job_id) if cut_off and row["worker"].startswith(ISLANDER)}
    for earlier, later, seconds in overlaps(read_diary(world.diary)):
        if seconds > GRACE_SECONDS or not on_the_island & {earlier.attempt_id, later.attempt_id}:
            yield f"agents {earlier.token} and {later.token} were at subtask {later.subtask_id} at once for {seconds:.2f} s"


def _agents_ended_with_their_attempts(world: World, job_id: str, *, cut_off: bool) -> Iterator[str]:
    """Nobody runs on: the last word of an agent comes before its attempt's recorded end, or soon after. Their clock and
    the database's are the machine's."""
    attempts = {row["id"]: row for row in _attempts(world, job_id)}
    for life in read_diary(world.diary):
        attempt = attempts.get(life.attempt_id)
        if attempt is None:
            continue
        allowed = GRACE_SECONDS if cut_off and attempt["worker"].startswith(ISLANDER) else GONE_SECONDS
        late = life.last_seen - attempt["finished_at"].timestamp()
        if late > allowed:
            yield f"the agent of attempt {life.subtask_id}.{life.number} was alive {late:.1f} s after its end"


def _each_attempt_began_and_ended_once(world: World, job_id: str) -> Iterator[str]:
    """In the diary of the job as in its rows."""
    told = Counter(
        (row["subtask_id"], row["attempt"], row["name"])
        for row in world.fleet.rows(
            "SELECT subtask_id, attempt, name FROM events WHERE job_id = :id AND name IN ('attempt.started', 'attempt.finished')",
            id=job_id,
        )
    )
    expected = Counter(
        (row["subtask_id"], row["number"], name)
        for row in _attempts(world, job_id)
        for name in ("attempt.started", "attempt.finished")
    )
    if told != expected:
        yield f"events and attempts differ: {told - expected} are too many, {expected - told} are missing"


def _never_too_many(world: World, job_id: str) -> Iterator[str]:
    """Recorded attempts never overlap beyond the limit; those whose worker was lost end when that was noticed."""
    rows = _attempts(world, job_id)
    moments = sorted([(row["started_at"], 1) for row in rows] + [(row["finished_at"], -1) for row in rows])
    at_once = 0
    for _, change in moments:
        at_once += change
        if at_once > AT_ONCE:
            yield f"{at_once} attempts at once, the limit is {AT_ONCE}"
            return


def _times_are_in_order(world: World, job_id: str) -> Iterator[str]:
    """By the database's clock alone: an attempt inside its group run, that one inside its group, inside its job."""
    job = world.fleet.job(job_id)
    groups = world.fleet.rows("SELECT * FROM groups WHERE job_id = :id ORDER BY number", id=job_id)
    for earlier, later in pairwise(groups):
        if earlier["finished_at"] > later["started_at"]:
            yield f"group {later['number']} started before group {earlier['number']} ended"
    for group in groups:
        if not job["started_at"] <= group["started_at"] <= group["finished_at"] <= job["finished_at"]:
            yield f"group {group['number']} lies outside of its job's time"
    of_number = {group["number"]: group for group in groups}
    runs = {row["id"]: row for row in world.fleet.rows("SELECT * FROM group_runs WHERE job_id = :id", id=job_id)}
    for run in runs.values():
        number = run["group_number"]
        outer = of_number[number]
        if not outer["started_at"] <= run["started_at"] <= run["completed_at"] <= outer["finished_at"]:
            yield f"the run of group {number} lies outside of its group's time"
    for row in _attempts(world, job_id):
        run = runs[row["group_run_id"]]
        if not run["started_at"] <= row["started_at"] <= row["finished_at"] <= run["completed_at"]:
            yield f"attempt {row['subtask_id']}.{row['number']} lies outside of its group run's time"
    for row in world.fleet.rows("SELECT * FROM subtasks WHERE job_id = :id", id=job_id):
        if row["merged_at"] is None or not row["started_at"] <= row["finished_at"] <= row["merged_at"]:
            yield f"subtask {row['subtask_id']} started, ended and was merged at {row['started_at']}, {row['finished_at']}, {row['merged_at']}"


def _attempts(world: World, job_id: str) -> list[dict[str, Any]]:
    return world.fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY id", id=job_id)


def _nothing_happened_after_the_end(world: World, job_id: str) -> Iterator[str]:
    late = world.fleet.rows(
        "SELECT name, subtask_id FROM events WHERE job_id = :id"
        " AND id > (SELECT max(id) FROM events WHERE job_id = :id AND name = 'job.finished')",
        id=job_id,
    )
    if late:
        yield f"after the job's end there was {late}"
