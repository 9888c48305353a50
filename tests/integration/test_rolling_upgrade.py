"""Old and new code in one fleet: what a rolling upgrade is made of.

The old code is the project as it was before its newest migration, out of the repository's own history.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from orchestrator.state import migrate, migrations
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import git, new_repository, shell
from tests.support.services import PostgresService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [newest] = Path(migrations.__file__).parent.glob(f"versions/{migrate.head()}_*.py")
    history = ["git", "-C", PROJECT, "log", "--format=%h^", "--diff-filter=A", "--", newest]
    before = subprocess.run(history, capture_output=True, text=True, check=False).stdout.strip()
    archive = ["git", "-C", PROJECT, "archive", before or "no history", "orchestrator", "workers"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"the history before {newest.name} is not here")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def test_a_fleet_is_upgraded_process_by_process_while_it_works(
    old_code: Path, postgres: PostgresService, broker: str, tmp_path: Path
) -> None:
    """A job of the old code goes on to its end, and one of the new code runs on workers of both."""
    database = postgres.new_empty_database()
    fleet = open_fleet(database, broker, tmp_path)
    try:
        _upgrade_and_work(fleet, old_code, database, new_repository(tmp_path / "repository"))
    finally:
        fleet.close()
        postgres.drop_database(database)


def _upgrade_and_work(fleet: TestFleet, old_code: Path, database: str, repository: Path) -> None:
    old = {"prefix": ["env", "-C", str(old_code)], "PYTHONPATH": str(old_code)}
    _by_old_code(old_code, f"from orchestrator.state.migrate import upgrade; upgrade({database!r})")
    fleet.start_dispatcher("old-dispatcher", **old)
    for name in ("old-1", "old-2"):
        fleet.start_worker(name, slots=2, **old)
    begun = _by_old_code(
        old_code,
        "from tests.support.fleet import open_fleet; from pathlib import Path;"
        f" fleet = open_fleet({database!r}, {fleet.settings.broker_url!r}, Path({str(fleet.folder)!r}));"
        f" print(fleet.submit({_plan(repository, 'begun')!r}))",
    )
    wait_until(lambda: fleet.rows("SELECT 1 FROM attempts"), "its agents have begun")

    migrate.upgrade(database)
    fleet.start_worker("new-1", slots=2)
    mixed = fleet.submit(_plan(repository, "mixed"))
    fleet.start_dispatcher("new-dispatcher")
    fleet.stop("old-dispatcher")
    fleet.stop("old-1")
    jobs = [fleet.wait_for_end(job_id, timeout_seconds=120) for job_id in (begun, mixed)]

    assert [job["status"] for job in jobs] == ["completed", "completed"]
    for job, word in zip(jobs, ("begun", "mixed"), strict=True):
        said = git(repository, "ls-tree", "-r", "--name-only", job["branch"]).split()
        assert set(said) == {"README", *(f"{word}-{number}" for number in range(1, 13))}
    workers = {row["worker"].partition("@")[0] for row in fleet.rows("SELECT worker FROM attempts")}
    assert workers == {"old-1", "old-2", "new-1"}
    outcomes = {row["status"] for row in fleet.rows("SELECT status FROM attempts")}
    assert outcomes <= {"completed", "interrupted"}


def _plan(repository: Path, word: str) -> dict[str, object]:
    """Three groups of four, on a repository."""
    subtasks = [
        shell(number, f"sleep 0.5; echo x > {word}-{number}", group=(number + 3) // 4) for number in range(1, 13)
    ]
    return {"title": word, "repo": str(repository), "max_parallel_agents": 4, "subtasks": subtasks}


def _by_old_code(old_code: Path, statements: str) -> str:
    """What a program of the old code prints; `tests` are of today."""
    found = [str(old_code), str(PROJECT)]
    said = subprocess.run(
        [sys.executable, "-P", "-c", statements],
        cwd=old_code,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        check=True,
        capture_output=True,
        text=True,
    )
    return said.stdout.strip()
