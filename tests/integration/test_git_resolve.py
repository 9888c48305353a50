"""What a plan's repository and base mean at submission, and each way in which they can be wrong."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import RepositoryError
from orchestrator.submitted_repository import resolve_repository
from tests.support.git_checkout import Repository
from tests.support.services import open_temporary_folder

BRANCH = "orchestrator/3f2a9c"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repository", {"file": "one\n", "folder/inner": "two\n"})


def resolve(repo: str | Path, base: str | None = None):
    return resolve_repository(str(repo), base, job_branch=BRANCH)


def test_no_base_means_the_branch_that_head_names(repository: Repository) -> None:
    found = resolve(repository.path)
    assert (found.repo, found.base, found.base_commit) == (str(repository.path), "main", repository.head)
    assert found.notes == ()


def test_a_folder_in_a_checkout_means_the_checkout(repository: Repository) -> None:
    found = resolve(repository.path / "folder")
    assert found.repo == str(repository.path)
    assert "is a folder in it" in found.notes[0]


def test_a_bare_repository(repository: Repository, tmp_path: Path) -> None:
    repository.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    found = resolve(tmp_path / "bare.git")
    assert (found.repo, found.base_commit) == (str(tmp_path / "bare.git"), repository.head)


def test_a_linked_worktree_has_its_own_head(repository: Repository, tmp_path: Path) -> None:
    repository.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    found = resolve(tmp_path / "side")
    assert (found.repo, found.base) == (str(tmp_path / "side"), "side")


@pytest.mark.parametrize("name", ["v1", "side", "HEAD~1"])
def test_a_base_may_be_any_name_of_a_commit(repository: Repository, name: str) -> None:
    first = repository.head
    repository.git("tag", "--annotate", "--message=one", "v1")
    repository.git("branch", "side")
    repository.commit({"file": "two\n"})
    assert resolve(repository.path, name).base_commit == first


def test_a_detached_head_is_told(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "--detach")
    found = resolve(repository.path)
    assert found.base == found.base_commit == repository.head
    assert "on no branch" in found.notes[0]


def test_a_dirty_checkout_works_and_stays_as_it_is(repository: Repository) -> None:
    repository.write({"file": "changed\n", "untracked": "new\n"})
    os.utime(repository.path / "folder" / "inner", (0, 0))  # tempts `git status` to refresh the index
    index = (repository.path / ".git" / "index").read_bytes()
    found = resolve(repository.path)
    assert found.base_commit == repository.head
    assert "uncommitted changes" in found.notes[0]
    assert (repository.path / ".git" / "index").read_bytes() == index


def test_a_url(repository: Repository) -> None:
    url = f"file://{repository.path}"
    assert resolve(url).base == "main"
    repository.git("tag", "--annotate", "--message=one", "v1")
    for base in ("main", "v1", repository.head, "refs/heads/main"):
        found = resolve(url, base)
        assert (found.repo, found.base, found.base_commit) == (url, base, repository.head)


def test_a_commit_of_a_url_that_no_branch_names(repository: Repository) -> None:
    first = repository.head
    repository.commit({"file": "two\n"})
    assert resolve(f"file://{repository.path}", first).base_commit == first


def test_a_shallow_clone(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"file": "two\n"})
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.path}", str(tmp_path / "shallow"))
    assert resolve(tmp_path / "shallow").base_commit == repository.head


def refused(repo: str | Path, base: str | None = None) -> str:
    with pytest.raises(RepositoryError) as caught:
        resolve(repo, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    assert "There is no repository at" in refused(tmp_path / "nowhere")


def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "is not a git repository. Run `git init`" in refused(tmp_path / "plain")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(tmp_path / "file")


def test_no_commit_yet(tmp_path: Path) -> None:
    empty = Repository.create(tmp_path / "empty")
    for repo in (str(empty.path), f"file://{empty.path}"):
        for base in (None, "main"):
            assert "has no commit yet" in refused(repo, base)


def test_a_base_that_does_not_exist_names_what_does(repository: Repository) -> None:
    repository.git("branch", "develop")
    for repo in (str(repository.path), f"file://{repository.path}"):
        said = refused(repo, "mian")
        assert "There is no branch or tag mian" in said
        assert "develop, main" in said
        assert "There is no commit" in refused(repo, "ab" * 20)
        assert "mian" not in refused(repo, "--upload-pack=touch")


def test_the_git_folder_is_not_the_checkout(repository: Repository) -> None:
    assert "lies inside a .git folder" in refused(repository.path / ".git")


def test_a_branch_in_the_way(repository: Repository) -> None:
    repository.git("branch", "orchestrator")
    for repo in (str(repository.path), f"file://{repository.path}"):
        assert re.search(r"The branch orchestrator of .* is in the way .*git branch -m", refused(repo))
    repository.git("branch", "-m", "orchestrator", BRANCH)
    assert f"The branch {BRANCH} of" in refused(repository.path)


@pytest.mark.parametrize("linked", [False, True])
def test_the_job_branch_checked_out(repository: Repository, tmp_path: Path, linked: bool) -> None:
    if linked:
        repository.git("worktree", "add", "--quiet", "-b", BRANCH, str(tmp_path / "linked"))
    else:
        repository.git("checkout", "--quiet", "-b", BRANCH)
    assert "is checked out in" in refused(repository.path)


def test_another_users_repository(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for path in (repository.path, *repository.path.rglob("*")):
        os.chown(path, 12345, 12345)
    assert "belongs to another user" in refused(repository.path)
    assert "safe.directory" in refused(repository.path)


@pytest.fixture
def as_a_plain_user() -> Iterator[None]:
    """Root may write everywhere: for once this process is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    yield
    os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = open_temporary_folder()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("closed", ["objects", "refs"])
def test_a_repository_that_can_not_be_pushed_to(
    open_folder: Path, closed: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": "*"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    repository = Repository.create(open_folder / "repository", {"file": "one\n"})
    folders = {name: repository.path / ".git" / name for name in ("objects", "refs")}
    for name, folder in folders.items():
        folder.chmod(0o555 if name == closed else 0o777)
    monkeypatch.chdir(open_folder)
    request.getfixturevalue("as_a_plain_user")
    said = refused(repository.path)
    assert "can't be written by this user" in said
    assert str(folders[closed]) in said


def test_a_url_that_does_not_answer() -> None:
    said = refused("http://me:hunter2@127.0.0.1:1/repo.git")
    assert "can't be read" in said
    assert "hunter2" not in said


def test_a_url_is_never_a_command(tmp_path: Path) -> None:
    refused(f"ext::touch {tmp_path}/ran")
    refused(f"--upload-pack=touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()
