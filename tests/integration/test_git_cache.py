"""The cache of a repository: whole or not there, written by one at a time, asked by all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.claimed_folders import claimed_folder, sweep_folders
from orchestrator.errors import GitError, RepositoryError
from orchestrator.git import GitResult, run_git
from orchestrator.repository_cache import RepositoryCache
from tests.support.git_checkout import Repository

PLAIN_USER = 12345


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repository", {"file": "one\n"})


@pytest.fixture
def cache(tmp_path: Path) -> RepositoryCache:
    return RepositoryCache(tmp_path / "caches")


def has(path: Path, commit: str) -> bool:
    return run_git("rev-list", "--objects", "--quiet", commit, cwd=path, check=False).exit_code == 0


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_it_brings_what_is_asked_for(repository: Repository, cache: RepositoryCache, form: str) -> None:
    repo = form.format(repository.path)
    first = repository.head
    assert has(cache.path_with(repo, [first]), first)
    repository.git("checkout", "--quiet", "-b", "side")
    second = repository.commit({"file": "two\n"})
    path = cache.path_with(repo, [first, second])
    assert has(path, second)
    assert run_git("rev-parse", "refs/remotes/origin/side", cwd=path).text == second


def test_nothing_is_asked_of_the_remote_when_nothing_is_missing(repository: Repository, cache: RepositoryCache) -> None:
    commit = repository.head
    path = cache.path_with(str(repository.path), [commit])
    shutil.rmtree(repository.path)
    assert cache.path_with(str(repository.path), [commit]) == path


def test_a_commit_that_only_an_attempts_ref_names(repository: Repository, cache: RepositoryCache) -> None:
    repo = f"file://{repository.path}"
    base = repository.head
    cache.path_with(repo, [base])
    commit = repository.commit({"file": "two\n"})
    repository.git("update-ref", "refs/orchestrator/job/1/1", commit)
    repository.git("reset", "--quiet", "--hard", base)
    assert has(cache.path_with(repo, [commit]), commit)


def test_what_a_clone_has_in_loose_files_is_one_pack(repository: Repository, cache: RepositoryCache) -> None:
    """A checkout would open each of them."""
    abandoned = repository.path / ".git" / "objects" / repository.head[:2] / "tmp_obj_abandoned"
    abandoned.write_bytes(b"half of an object")
    path = cache.path_with(str(repository.path), [repository.head])
    assert has(path, repository.head)
    assert run_git("count-objects", cwd=path).text.startswith("0 objects")
    assert len(list((path / "objects" / "pack").glob("*.pack"))) == 1


def test_a_loose_object_that_is_broken_spoils_no_other(repository: Repository, cache: RepositoryCache) -> None:
    broken = run_git("hash-object", "-w", "--stdin", cwd=repository.path, input=b"nobody names it\n").text
    file = repository.path / ".git" / "objects" / broken[:2] / broken[2:]
    file.chmod(0o644)
    file.write_bytes(b"no object")
    assert has(cache.path_with(str(repository.path), [repository.head]), repository.head)


def test_a_branch_that_became_a_folder_of_branches(repository: Repository, cache: RepositoryCache) -> None:
    repository.git("branch", "topic")
    cache.path_with(str(repository.path), [repository.head])
    repository.git("branch", "-m", "topic", "topic/one")
    commit = repository.commit({"file": "two\n"})
    assert has(cache.path_with(str(repository.path), [commit]), commit)


def test_a_commit_that_nobody_has(repository: Repository, cache: RepositoryCache) -> None:
    with pytest.raises(RepositoryError, match="does not give out commit " + "ab" * 20):
        cache.path_with(str(repository.path), ["ab" * 20])


def test_a_clone_that_failed_is_no_cache(repository: Repository, cache: RepositoryCache) -> None:
    commit = repository.head
    moved = repository.path.rename(repository.path.with_name("moved"))
    with pytest.raises(GitError):
        cache.path_with(str(repository.path), [commit])
    assert list(cache.root.glob("*.git")) == []
    (cache.root / f"{next(cache.root.glob('*.lock')).stem}.making-left").mkdir()
    moved.rename(repository.path)
    assert has(cache.path_with(str(repository.path), [commit]), commit)
    assert list(cache.root.glob("*making*")) == []


def test_many_at_once_make_one_cache(repository: Repository, cache: RepositoryCache) -> None:
    repo = f"file://{repository.path}"
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(3):
            commit = repository.commit({"file": f"round {round_}\n"})
            paths = set(pool.map(lambda commit: cache.path_with(repo, [commit]), [commit] * 8))
            assert len(paths) == 1
            (path,) = paths
            assert has(path, commit)
    packs = list((path / "objects" / "pack").glob("*.pack"))
    assert len(packs) <= 3, "one fetch a round, not one a thread"
    assert run_git("count-objects", cwd=path).text.startswith("0 objects"), "a commit came before its files"


def test_what_is_there_is_looked_for_once_and_what_is_missing_too(
    repository: Repository, cache: RepositoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agents of a group begin at the same moment, all of them at the same commit."""
    cache.path_with(str(repository.path), [repository.head])
    ran: list[str] = []

    def count(*args: Any, **kwargs: Any) -> GitResult:
        ran.append(str(args[0]))
        return run_git(*args, **kwargs)

    monkeypatch.setattr("orchestrator.repository_cache.run_git", count)
    new_process = RepositoryCache(cache.root)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: new_process.path_with(str(repository.path), [repository.head]), range(8)))
    assert ran == ["cat-file"]
    ran.clear()
    new_process.path_with(str(repository.path), [repository.commit({"new": "1\n"})])
    assert ran == ["cat-file", "fetch", "pack-refs"]


def test_what_a_killed_git_has_left_is_in_nobodys_way(repository: Repository, cache: RepositoryCache) -> None:
    path = cache.path_with(str(repository.path), [repository.head])
    (path / "packed-refs.lock").touch()
    old, fresh = (path / "objects" / "pack" / name for name in ("tmp_pack_old", "tmp_pack_fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    repository.git("branch", "side", new := repository.commit({"new": "1\n"}))
    cache.path_with(str(repository.path), [new])
    assert f"{new} refs/remotes/origin/side" in (path / "packed-refs").read_text()
    assert (old.exists(), fresh.exists()) == (False, True), "somebody may be writing the fresh one"


def test_branches_are_looked_for_again(repository: Repository, cache: RepositoryCache, tmp_path: Path) -> None:
    path = cache.path_with(str(repository.path), [repository.head])
    repository.git("branch", "side")
    cache.look_again(str(repository.path))
    assert f"{repository.head} refs/remotes/origin/side" in (path / "packed-refs").read_text()
    repository.git("branch", "-D", "side")
    repository.path.rename(tmp_path / "away")
    cache.look_again(str(repository.path))
    assert "side" in (path / "packed-refs").read_text(), "nobody has answered"


def test_names_of_repositories_never_meet(repository: Repository, cache: RepositoryCache) -> None:
    one = cache.path_with(str(repository.path), [repository.head])
    two = cache.path_with(f"file://{repository.path}", [repository.head])
    assert one != two
    assert one.name.startswith("repository-")


def test_no_password_is_kept_in_a_cache(repository: Repository, cache: RepositoryCache) -> None:
    path = cache.path_with(f"file://{repository.path}", [repository.head])
    assert str(repository.path) not in (path / "config").read_text()


@pytest.mark.parametrize("of_many_files", [False, True])
def test_a_claimed_folder_goes_whatever_is_in_it(tmp_path: Path, of_many_files: bool) -> None:
    def work() -> None:
        with claimed_folder(tmp_path / "root", "job", of_many_files=of_many_files) as folder:
            locked = folder / "deep" / "read-only"
            locked.mkdir(parents=True)
            (locked / "file").write_text("")
            (folder / "outside").symlink_to(tmp_path)
            locked.chmod(0o500)
            locked.parent.chmod(0o000)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert tmp_path.is_dir()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["claims.lock"]


def test_many_files_are_removed_by_a_program_and_where_there_is_none_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    monkeypatch.setattr("orchestrator.claimed_folders.remove_tree", lambda folder: left.append(folder.exists()))
    for path in (os.environ["PATH"], str(tmp_path)):
        monkeypatch.setenv("PATH", path)
        with claimed_folder(tmp_path / "root", "job", of_many_files=True) as folder:
            (folder / "-rf").write_text("")
    assert left == [False, True]


def test_read_only_folders_go_also_for_a_plain_user(tmp_path: Path) -> None:
    locked = tmp_path / "tree" / "deep" / "read-only"
    locked.mkdir(parents=True)
    (locked / "file").write_text("")
    locked.chmod(0o500)
    locked.parent.chmod(0o000)
    become = "import os, pathlib; from orchestrator.claimed_folders import remove_tree; "
    if os.geteuid() == 0:
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, PLAIN_USER, PLAIN_USER)
        become += f"os.setgid({PLAIN_USER}); os.setuid({PLAIN_USER}); "
    subprocess.run([sys.executable, "-c", become + "remove_tree(pathlib.Path('tree'))"], cwd=tmp_path, check=True)
    assert not (tmp_path / "tree").exists()


def test_a_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    script = (
        "import os, pathlib; from orchestrator.claimed_folders import claimed_folder as c\n"
        f"with c(pathlib.Path({str(root)!r}), 'dead') as folder:\n (folder / 'file').write_text(''); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    (left,) = (path.name for path in root.iterdir() if path.is_dir())
    with claimed_folder(root, "alive") as alive:
        assert sweep_folders(root, live=lambda name: name == left) == []
        assert sweep_folders(root) == [left]
        assert alive.is_dir()
        assert sorted(path.name for path in root.iterdir()) == [alive.name, f"{alive.name}.lock", "claims.lock"]
    assert sweep_folders(tmp_path / "never-made") == []
