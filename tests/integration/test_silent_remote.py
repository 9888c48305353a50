"""A remote that takes the connection and says nothing holds up nobody who is asked to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from orchestrator.dispatch.steering import cancel_job
from orchestrator.errors import GitError
from orchestrator.git import run_git, until_stopped
from orchestrator.push import push
from orchestrator.repository_cache import RepositoryCache
from orchestrator.supervisor import StopSignal
from tests.support.fleet import TestFleet
from tests.support.repositories import git, new_repository, shell
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


class Silence:
    """Listens, takes every connection, and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"git://127.0.0.1:{self._listener.getsockname()[1]}/repository"
        self.callers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.callers.append(self._listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()
        for caller in self.callers:
            caller.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")


@pytest.fixture
def silence() -> Iterator[Silence]:
    one = Silence()
    yield one
    one.close()


def test_git_ends_with_the_signal_or_its_patience_later_and_before_that_nobody_ends_it(silence: Silence) -> None:
    with StopSignal() as stop:
        errors: list[GitError] = []

        def ask(patience_seconds: float) -> None:
            try:
                with until_stopped(stop, patience_seconds=patience_seconds):
                    run_git("ls-remote", "--", silence.url, cwd=None)
            except GitError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(patience,)) for patience in (0.0, 0.2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(silence.callers) == len(threads), "both wait for an answer")
        assert errors == []
        stop.set("cancelled")
        for thread in threads:
            thread.join()
        ask(0.0)  # and whoever comes later
        assert len(errors) == 3


def test_a_push_that_is_ended_leaves_no_lock_in_the_users_repository(repository: Path, tmp_path: Path) -> None:
    """Every later push of that ref would be refused, until somebody removes the file by hand."""
    held = tmp_path / "held"
    hook = repository / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\n[ "$1" = prepared ] || exit 0\ntouch {held}\nsleep 60\n')
    hook.chmod(0o755)
    work = new_repository(tmp_path / "work", {"file": "new\n"})
    commit, ref = git(work, "rev-parse", "HEAD").strip(), "refs/orchestrator/job/1/1"
    with StopSignal() as stop:

        def give_up() -> None:
            wait_until(held.exists, "the ref is locked")
            stop.set("cancelled")

        threading.Thread(target=give_up).start()
        with until_stopped(stop), pytest.raises(GitError):
            push(str(repository), commit, ref, expected=None, cwd=work)
    assert list((repository / ".git").rglob("*.lock")) == []
    hook.unlink()
    assert push(str(repository), commit, ref, expected=None, cwd=work) is None


def test_nobody_who_is_asked_to_stop_waits_for_anothers_clone(silence: Silence, tmp_path: Path) -> None:
    cache = RepositoryCache(tmp_path / "caches")
    with StopSignal() as others, StopSignal() as own, ThreadPoolExecutor(2) as pool:

        def ask(stop: StopSignal) -> None:
            with until_stopped(stop):
                cache.path_with(silence.url, ["1" * 40])

        cloning = pool.submit(ask, others)
        wait_until(lambda: silence.callers, "the clone is under way")
        waiting = pool.submit(ask, own)
        own.set("cancelled")
        with pytest.raises(GitError):
            waiting.result(30)
        assert not cloning.done()
        others.set("cancelled")
        with pytest.raises(GitError):
            cloning.result(30)


def test_a_cancelled_job_does_not_wait_for_a_clone(fleet: TestFleet, silence: Silence, tmp_path: Path) -> None:
    job_id = job_that_waits(fleet, silence, tmp_path)
    cancel_job(fleet.client, job_id)
    assert fleet.wait_for_end(job_id, timeout_seconds=30)["status"] == "cancelled"
    fleet.stop("worker")


def test_a_worker_that_is_asked_to_stop_does_not_wait_for_a_clone(
    fleet: TestFleet, silence: Silence, tmp_path: Path
) -> None:
    job_id = job_that_waits(fleet, silence, tmp_path)
    fleet.stop("worker")
    rows = fleet.rows("SELECT status FROM attempts WHERE job_id = :id", id=job_id)
    assert [row["status"] for row in rows] == ["interrupted"]


def test_a_dispatcher_that_is_asked_to_stop_waits_for_no_push_for_ever(
    fleet: TestFleet, repository: Path, tmp_path: Path
) -> None:
    held, hook = tmp_path / "held", repository / ".git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ngrep -q refs/heads/orchestrator/ || exit 0\ntouch {held}\nsleep 987\n")
    hook.chmod(0o755)
    fleet.start_dispatcher("first")
    fleet.start_worker()
    subtask = shell(1, "echo new > made.txt")
    job_id = fleet.submit({"title": "Silent", "repo": str(repository), "subtasks": [subtask]})
    wait_until(held.exists, "the merge's push is under way")
    fleet.stop("first", timeout_seconds=90)
    hook.unlink()
    fleet.start_dispatcher("second")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    assert git(repository, "show", f"orchestrator/{job_id}:made.txt") == "new\n"


def job_that_waits(fleet: TestFleet, silence: Silence, tmp_path: Path) -> str:
    """A worker asks for the job's repository, in vain."""
    repository = new_repository(tmp_path / "repository")
    job_id = fleet.submit({"title": "Silent", "repo": str(repository), "subtasks": [shell(1, "true")]})
    with fleet.client.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET repo = :url"), {"url": silence.url})
    fleet.start_dispatcher()
    fleet.start_worker()
    wait_until(lambda: silence.callers, "the worker asks for the repository")
    return job_id
