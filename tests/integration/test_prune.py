"""What `prune` deletes, and what it never does: on real rows, repositories and folders."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from orchestrator.claimed_folders import claimed_folder
from orchestrator.repository_cache import RepositoryCache
from orchestrator.state.engine import create_engine
from tests.support import job_rows
from tests.support.command_line import InProcess, command_line_in_process
from tests.support.repositories import git, new_repository, refuse_pushes

OLD, OTHER, FRESH, OPEN = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


@dataclass(frozen=True)
class Prune:
    run: InProcess
    state_dir: Path

    def text(self, *words: str, code: int = 0) -> str:
        said = self.run("prune", *words, code=code)
        return said.out + said.err

    def document(self, *words: str, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("prune", *words, "--json", code=code).out)
        return document


@pytest.fixture
def prune(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prune:
    state_dir = tmp_path / "state"
    return Prune(command_line_in_process(monkeypatch, capsys, database_url=database, state_dir=state_dir), state_dir)


def a_job_in(engine: Engine, job_id: str, repository: Path | str, *, status: str = "failed", days: int = 40) -> None:
    """A job with two subtasks, of which only the first one's change was merged, each with a ref and a log."""
    head = git(Path(repository), "rev-parse", "main").strip() if Path(repository).is_dir() else None
    if head is not None:
        git(Path(repository), "update-ref", f"refs/heads/orchestrator/{job_id}", head)
        for ref in ("1/1", "1/2", "2/1"):
            git(Path(repository), "update-ref", f"refs/orchestrator/{job_id}/{ref}", head)
    with engine.begin() as connection:
        values = {"repo": str(repository), "branch": f"orchestrator/{job_id}", "head_commit": head}
        job_rows.insert_job(connection, job_id, status=status, title=f"Job {job_id[:2]}", **values)
        job_rows.insert_group(connection, job_id, 1, {1: "completed", 2: "failed"})
        for subtask_id in (1, 2):
            ended = {"status": "completed", "finished_at": "now"}
            attempt = job_rows.insert_attempt(connection, job_id, subtask_id, **ended)
            job_rows.write_lines(connection, job_id, subtask_id, attempt, 1, "a line")
        connection.execute(
            text("UPDATE subtasks SET merged_at = now() WHERE job_id = :id AND subtask_id = 1"), {"id": job_id}
        )
        connection.execute(
            text("UPDATE jobs SET finished_at = finished_at - make_interval(days => :days) WHERE id = :id"),
            {"id": job_id, "days": days},
        )


def jobs_left(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM jobs ORDER BY id")).scalars())


def refs_of(repository: Path) -> list[str]:
    listing = git(repository, "for-each-ref", "--format=%(refname)", "refs/orchestrator", "refs/heads/orchestrator")
    return listing.split()


def test_old_jobs_go_with_their_rows_and_the_refs_of_merged_changes(
    engine: Engine, repository: Path, prune: Prune
) -> None:
    a_job_in(engine, OLD, repository)
    a_job_in(engine, FRESH, repository, days=3)
    a_job_in(engine, OPEN, repository, status="running", days=90)
    before = refs_of(repository)
    looked = prune.document("--dry-run")
    assert (jobs_left(engine), refs_of(repository)) == ([OLD, FRESH, OPEN], before), "a dry run changes nothing"
    done = prune.document()
    assert looked["jobs"] == done["jobs"]
    (job,) = done["jobs"]
    assert (job["id"], job["deleted"], job["branch_deleted"], job["problem"]) == (OLD, True, False, None)
    assert job["refs_deleted"] == [f"refs/orchestrator/{OLD}/1/1", f"refs/orchestrator/{OLD}/1/2"]
    assert job["refs_kept"] == [f"refs/orchestrator/{OLD}/2/1"]
    assert jobs_left(engine) == [FRESH, OPEN]
    assert sorted(set(before) - set(refs_of(repository))) == job["refs_deleted"]
    with engine.connect() as connection:
        for table in ("groups", "subtasks", "attempts", "log_chunks"):
            left = connection.execute(text(f"SELECT DISTINCT job_id FROM {table} ORDER BY job_id")).scalars()
            assert list(left) == [FRESH, OPEN], table


def test_branches_and_unmerged_changes_go_only_when_that_is_asked_for(
    engine: Engine, repository: Path, prune: Prune
) -> None:
    a_job_in(engine, OLD, repository)
    a_job_in(engine, OTHER, repository)
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "more")
    git(repository, "update-ref", f"refs/heads/orchestrator/{OTHER}", "main")
    said = prune.text("--branches", "--unmerged")
    assert "Deleted 2 jobs, 6 refs, 1 of their branches" in said
    assert refs_of(repository) == [f"refs/heads/orchestrator/{OTHER}"], "somebody has moved this one"
    assert jobs_left(engine) == []


def test_the_jobs_that_ended_last_may_be_kept(engine: Engine, repository: Path, prune: Prune) -> None:
    for job_id, days in ((OLD, 50), (OTHER, 45), (FRESH, 1)):
        a_job_in(engine, job_id, repository, days=days)
    assert [job["id"] for job in prune.document("--keep", "2")["jobs"]] == [OLD]
    assert jobs_left(engine) == [OTHER, FRESH]
    assert [job["id"] for job in prune.document("--older-than", "0d", "--no-refs")["jobs"]] == [OTHER, FRESH]
    assert f"refs/orchestrator/{OTHER}/1/1" in refs_of(repository)


def test_a_job_whose_repository_can_not_be_read_is_left(
    engine: Engine, repository: Path, prune: Prune, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    a_job_in(engine, OTHER, repository)
    a_job_in(engine, OLD, tmp_path / "gone")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET repo = :repo WHERE id = :id"), {"repo": str(tmp_path / "broken"), "id": OTHER}
        )
    said = prune.text(code=3)
    assert f"Left job {OTHER} as it is: git ls-remote failed: " in said
    assert "does not appear to be a git repository" in said
    assert jobs_left(engine) == [OTHER], "the other one's repository is gone, and with it what could be deleted there"
    prune.text("--no-refs")
    assert jobs_left(engine) == []


def test_a_ref_that_the_repository_keeps_keeps_its_job(engine: Engine, repository: Path, prune: Prune) -> None:
    a_job_in(engine, OLD, repository)
    hook = refuse_pushes(repository)
    (job,) = prune.document(code=3)["jobs"]
    assert "pre-receive hook declined" in job["problem"]
    assert (job["deleted"], job["refs_deleted"]) == (False, [])
    assert jobs_left(engine) == [OLD]
    hook.unlink()
    assert prune.document()["jobs"][0]["deleted"]


def test_caches_and_workspaces_that_nobody_needs_go(
    engine: Engine, repository: Path, prune: Prune, tmp_path: Path
) -> None:
    wanted = new_repository(tmp_path / "wanted")
    a_job_in(engine, OLD, repository)
    a_job_in(engine, OPEN, wanted, status="running")
    cache = RepositoryCache(prune.state_dir / "repositories")
    unneeded, kept = cache.path_with(str(repository), []), cache.path_with(str(wanted), [])
    workspaces = prune.state_dir / "workspaces"
    (workspaces / f"{OLD}-1-1-dead").mkdir(parents=True)
    (workspaces / f"{OLD}-1-1-dead.lock").touch()
    looked = prune.document("--dry-run")
    assert (looked["caches"], looked["workspaces"]) == ([unneeded.name], [f"{OLD}-1-1-dead"])
    assert unneeded.exists()
    with claimed_folder(workspaces, f"{OPEN}-1-1") as at_work:
        assert prune.document()["caches"] == [unneeded.name]
        assert at_work.exists()
    assert kept.exists()
    assert list(cache.root.glob("*.removing-*")) == []
    assert sorted(path.name for path in workspaces.iterdir()) == ["claims.lock"]


def test_no_cache_goes_while_somebody_works_for_a_job_of_another_database(repository: Path, prune: Prune) -> None:
    cache = RepositoryCache(prune.state_dir / "repositories").path_with(str(repository), [])
    workspaces = prune.state_dir / "workspaces"
    with claimed_folder(workspaces, f"{OTHER}-1-1"):
        assert prune.document()["caches"] == []
    with cache.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune.document()["caches"] == [], "somebody fetches into it"
    assert cache.exists()
    assert prune.document()["caches"] == [cache.name]


def test_an_age_that_is_none_is_refused(prune: Prune) -> None:
    assert prune.text("--older-than", "soon", code=2) == (
        "error: --older-than soon is no age.\n  Write it as 12h or 30d.\n"
    )
