"""A spare checkout becomes what a fresh one would be, and never more than there should be of them are there."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.repository_cache import RepositoryCache
from tests.support.fleet import TestFleet
from tests.support.git_checkout import Repository
from tests.support.repositories import new_repository, shell
from tests.support.waiting import wait_until
from workers import spare_checkouts
from workers.spare_checkouts import SpareCheckouts
from workers.workspace import Workspace
from workers.workspaces import Workspaces

MANY_FILES = {f"part-{n // 50}/file-{n}": f"{n}\n" for n in range(1500)}


@pytest.fixture(autouse=True)
def every_checkout_is_worth_a_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_checkouts, "WORTH_SECONDS", 0.0)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(tmp_path / "repository")
    repository.write(
        {"kept": "1\n", "changed": "1\n", "gone/too": "1\n", "file-to-folder": "1\n", "folder/file": "1\n"}
    )
    repository.write({"run.sh": "true\n", "unlinked": "a\n"})
    (repository.path / "link").symlink_to("kept")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module-gone")
    repository.commit({})
    return repository


def change_everything(repository: Repository) -> None:
    repository.write({"changed": "2\n", "gone": None, "file-to-folder": None, "folder": None, "link": None})
    repository.write({"file-to-folder/inside": "2\n", "folder": "2\n", "link": "kept", "new/one": "2\n"})
    (repository.path / "run.sh").chmod(0o755)
    (repository.path / "unlinked").unlink()
    (repository.path / "unlinked").symlink_to("nowhere")
    repository.git("update-index", "--force-remove", "module-gone")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'2' * 40},module-new")
    repository.commit({})


@pytest.fixture
def spares(tmp_path: Path) -> Iterator[SpareCheckouts]:
    (tmp_path / "workspaces").mkdir()
    spares = SpareCheckouts(tmp_path / "workspaces", most=2)
    yield spares
    spares.close()


@contextmanager
def prepared(workspaces: Workspaces, repository: Repository, subtask_id: int = 1) -> Iterator[Workspace]:
    with workspaces.prepare(
        job_id="job", subtask_id=subtask_id, attempt_number=1, repo=str(repository.path), base_commit=repository.head
    ) as workspace:
        yield workspace


def with_spares(tmp_path: Path, spares: SpareCheckouts | None) -> Workspaces:
    return Workspaces(tmp_path / "workspaces", RepositoryCache(tmp_path / "caches"), spares=spares)


def wait_for(spares: SpareCheckouts, number: int) -> None:
    wait_until(lambda: len(spares._kept) == number and not spares._is_short(), f"{number} spares are ready")


def wait_for_the_next_second(spares: SpareCheckouts, folder: Path) -> None:
    """A spare is given out when the second in which it was written is over, by the file system's clock."""

    def is_over() -> bool:
        (folder / "clock").touch()
        return int((folder / "clock").stat().st_mtime) > max(kept.spare.second for kept in spares._kept)

    wait_until(is_over, "the second is over")


def with_one_spare(tmp_path: Path, repository: Repository, spares: SpareCheckouts) -> Workspaces:
    """An attempt has left one, and the next may have it."""
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository):
        wait_for(spares, 1)
    wait_for_the_next_second(spares, tmp_path)
    return workspaces


def content(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and link, and every folder, git's own apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name == ".git" or name.startswith(".git/"):
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_dir():
            found[name] = ("folder", b"")
        else:
            found[name] = (oct(path.stat().st_mode), path.read_bytes())
    return found


def what_an_agent_sees(workspace: Workspace) -> dict[str, object]:
    git_dir = workspace.path / ".git"
    agent = Repository(workspace.path)
    return {
        "files": content(workspace.path),
        "status": agent.git("status", "--porcelain", "--branch"),
        "index": agent.git("ls-files", "--stage"),
        "head": (git_dir / "HEAD").read_text(),
        "refs": agent.git("for-each-ref"),
        "reflog": len(agent.git("reflog").splitlines()),
        "alternates": (git_dir / "objects" / "info" / "alternates").read_text(),
        "config": (git_dir / "config").read_text(),
    }


def test_a_moved_spare_is_what_a_fresh_checkout_is(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts
) -> None:
    workspaces = with_one_spare(tmp_path, repository, spares)
    (kept,) = spares._kept
    change_everything(repository)
    with prepared(workspaces, repository) as moved, prepared(with_spares(tmp_path, None), repository) as fresh:
        assert kept not in spares._kept
        assert what_an_agent_sees(moved) == what_an_agent_sees(fresh)
        assert not kept.spare.checkout.parent.exists()
        assert moved.changed_files() == []


def test_a_change_of_the_same_size_right_after_is_seen(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts
) -> None:
    """Its index says that none of its files needs a second look; what the agent writes has a later time."""
    workspaces = with_one_spare(tmp_path, repository, spares)
    with prepared(workspaces, repository) as workspace:
        (workspace.path / "changed").write_text("9\n")
        commit = workspace.commit_all(title="Change", subtask_id=1, job_id="job")
        assert workspace.changed_files(commit) == ["changed"]


def test_a_spare_is_not_given_out_in_the_second_in_which_it_was_written(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts
) -> None:
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository):
        wait_for(spares, 1)
    (kept,) = spares._kept
    object.__setattr__(kept.spare, "second", kept.spare.second + 1000)
    with prepared(workspaces, repository) as workspace:
        assert kept in spares._kept
        assert (workspace.path / "kept").read_text() == "1\n"


def test_other_attributes_want_a_fresh_checkout(tmp_path: Path, repository: Repository, spares: SpareCheckouts) -> None:
    """Git would not write a file again whose content is the same, though it is to be written in another way."""
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository) as workspace:
        assert (workspace.path / "kept").read_bytes() == b"1\n"
        wait_for(spares, 1)
    wait_for_the_next_second(spares, tmp_path)
    repository.commit({"sub/.gitattributes": "x\n", ".gitattributes": "* text eol=crlf\n"})
    with prepared(workspaces, repository) as workspace:
        assert (workspace.path / "kept").read_bytes() == b"1\r\n"


def test_a_broken_spare_gives_way_to_a_fresh_checkout(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts
) -> None:
    workspaces = with_one_spare(tmp_path, repository, spares)
    (kept,) = spares._kept
    (kept.spare.checkout / ".git" / "index").write_text("no index")
    with prepared(workspaces, repository) as workspace:
        assert kept not in spares._kept
        assert (workspace.path / "changed").read_text() == "1\n"


def test_there_are_as_many_as_agents_at_work_and_never_more_than_allowed(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts
) -> None:
    workspaces = with_spares(tmp_path, spares)
    other = Repository.create(tmp_path / "other", {"a": "1\n"})
    with ExitStack() as at_work:
        at_work.enter_context(prepared(workspaces, repository, 1))
        wait_for(spares, 1)
        at_work.enter_context(prepared(workspaces, repository, 2))
        at_work.enter_context(prepared(workspaces, repository, 3))
        wait_for(spares, 2)
        at_work.enter_context(prepared(workspaces, other, 4))
        wait_until(lambda: len({kept.source for kept in spares._kept}) == 2, "one has made room for the other's")
        assert len(spares._kept) == 2
        assert len(list(workspaces.root.glob("*-spare-*.lock"))) == 2


def test_the_next_group_finds_as_many_as_were_at_work_at_once(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the agents were gone before one could be made."""
    workspaces, all_gone = with_spares(tmp_path, spares), threading.Event()

    def make(wish: Any) -> None:
        assert all_gone.wait(30)
        SpareCheckouts._make(spares, wish)

    monkeypatch.setattr(spares, "_make", make)
    with prepared(workspaces, repository, 1), prepared(workspaces, repository, 2):
        pass
    assert not spares._kept
    all_gone.set()
    wait_until(lambda: len(spares._kept) == 2, "two are ready")


def test_what_nobody_uses_any_more_is_removed(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository):
        wait_for(spares, 1)
    monkeypatch.setattr(spare_checkouts, "UNUSED_SECONDS", 0.0)
    with spares._changed:
        spares._changed.notify()
    wait_until(lambda: [path.name for path in workspaces.root.iterdir()] == ["claims.lock"], "the spare is gone")


def test_all_together_take_no_more_than_one_workspace_may(tmp_path: Path, repository: Repository) -> None:
    spares = SpareCheckouts(tmp_path / "workspaces", most=2, max_bytes=4096)
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository):
        wait_until(lambda: spares._wish is None, "one was made, and was too large")
        assert not spares._kept
        assert not list(workspaces.root.glob("*-spare-*"))
    spares.close()


@pytest.mark.parametrize(("seconds", "files", "is_worth_it"), [(1000.0, 9, False), (1000.0, 8, True), (0.0, 9, True)])
def test_a_small_and_fast_checkout_needs_no_spare(
    tmp_path: Path,
    repository: Repository,
    spares: SpareCheckouts,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    files: int,
    is_worth_it: bool,
) -> None:
    """There are eight entries in the index, the submodule's among them."""
    monkeypatch.setattr(spare_checkouts, "WORTH_SECONDS", seconds)
    monkeypatch.setattr(spare_checkouts, "WORTH_FILES", files)
    with prepared(with_spares(tmp_path, spares), repository):
        assert (spares._wish is not None) == is_worth_it


def test_the_end_waits_for_no_git(
    tmp_path: Path, repository: Repository, spares: SpareCheckouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[subprocess.Popen[bytes]] = []

    def stop(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)
        SpareCheckouts._note_git(spares, process)
        stopped.append(process)

    monkeypatch.setattr(spares, "_note_git", stop)
    workspaces = with_spares(tmp_path, spares)
    with prepared(workspaces, repository):
        wait_until(lambda: stopped, "one is being made")
        spares.close()
        assert not list(workspaces.root.glob("*-spare-*"))


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_leaves_none_behind(fleet: TestFleet, tmp_path: Path, signal_number: signal.Signals) -> None:
    repository = new_repository(tmp_path / "repository", MANY_FILES)
    workspaces, gate = fleet.settings.workspaces_dir, tmp_path / "gate"
    fleet.start_dispatcher()
    fleet.start_worker("first")
    waiting = [shell(n, f"until test -e {gate}; do sleep 0.1; done; echo {n} > made-{n}", group=1) for n in (1, 2)]
    after = [shell(n, f"echo {n} > made-{n}", group=2) for n in (3, 4)]
    job_id = fleet.submit({"title": "Large", "repo": str(repository), "subtasks": [*waiting, *after]})
    made = f"{job_id}-spare-*/checkout/.git/index"
    wait_until(lambda: len(list(workspaces.glob(made))) == 2, "two spares are there", timeout_seconds=60)
    fleet.stop("first", signal_number)
    if signal_number == signal.SIGTERM:
        assert not list(workspaces.glob("*-spare-*"))
    gate.touch()
    fleet.start_worker("second")
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    fleet.stop("second")
    assert [path.name for path in workspaces.iterdir()] == ["claims.lock"]
