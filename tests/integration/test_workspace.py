"""A workspace gives an agent a repository of its own, and takes the result from the files, whatever the agent has done."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import GitError
from orchestrator.git import GitResult, attempt_ref, run_git
from orchestrator.repository_cache import RepositoryCache
from tests.support.git_checkout import Repository
from tests.support.repositories import git, refuse_pushes
from tests.support.waiting import wait_until
from workers.checkout_files import read_plain_file
from workers.removal import Removal
from workers.workspace import Workspace
from workers.workspaces import Workspaces

BASE_FILES: dict[str, str | bytes | None] = {
    "kept": "kept\n",
    "changed": "old\n",
    "deleted": "old\n",
    "src/code.py": "print()\n",
    ".gitignore": "*.log\nbuild/\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repository", BASE_FILES)


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspaces", RepositoryCache(tmp_path / "caches"))


@contextmanager
def prepared(
    workspaces: Workspaces, repository: Repository, subtask_id: int = 1
) -> Iterator[tuple[Workspace, Repository]]:
    with workspaces.prepare(
        job_id="job", subtask_id=subtask_id, attempt_number=1, repo=str(repository.path), base_commit=repository.head
    ) as workspace:
        yield workspace, Repository(workspace.path)


def finish(workspace: Workspace, repository: Repository, subtask_id: int = 1) -> str:
    """Commit and push, and return what the user's repository then has."""
    commit = workspace.commit_all(title="Do it", subtask_id=subtask_id, job_id="job")
    ref = attempt_ref("job", subtask_id, 1)
    assert workspace.push(commit, ref) is None
    assert repository.git("rev-parse", ref) == commit
    repository.git("merge-base", "--is-ancestor", repository.head, commit)
    return commit


def test_uncommitted_work_is_committed_for_the_agent(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write(
            {"changed": "new\n", "deleted": None, "new/file": "new\n", "x.log": "ignored", "build/o": "ignored"}
        )
        assert workspace.changed_files() == ["changed", "deleted", "new/file"]
        commit = finish(workspace, repository)
    assert repository.files(commit) == {"kept", "changed", "src/code.py", ".gitignore", "new/file"}
    assert repository.content(commit, "changed") == "new"
    assert repository.git("log", "-1", "--format=%B%an %ae", commit) == (
        "Do it\n\nsubtask 1 of job job\norchestrator orchestrator@localhost"
    )
    assert repository.git("rev-parse", f"{commit}^") == repository.head


def test_nothing_changed_is_the_base_commit(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({"x.log": "ignored"})
        os.utime(workspace.path / "kept")
        assert workspace.changed_files() == []
        assert finish(workspace, repository) == repository.head


def test_changes_that_were_undone_are_nothing(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.commit({"changed": "new\n"})
        agent.commit({"changed": "old\n"})
        assert finish(workspace, repository) == repository.head


def test_the_agents_commits_stay(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.commit({"changed": "one\n"}, "first step")
        assert finish(workspace, repository) == agent.head
    with prepared(workspaces, repository, 2) as (workspace, agent):
        first = agent.commit({"changed": "one\n"}, "first step")
        agent.write({"changed": "two\n"})
        commit = finish(workspace, repository, 2)
        assert repository.git("rev-parse", f"{commit}^") == first


def test_pushing_again_is_fine_and_something_else_is_not(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({"changed": "one\n"})
        commit = finish(workspace, repository)
        workspace.push(commit, attempt_ref("job", 1, 1))
        agent.write({"changed": "two\n"})
        other = workspace.commit_all(title="Do it", subtask_id=1, job_id="job")
        refusal = workspace.push(other, attempt_ref("job", 1, 1))
        assert refusal is not None
        assert refusal.reason == "[rejected] (stale info)"
    assert repository.git("rev-parse", attempt_ref("job", 1, 1)) == commit


def test_a_repository_that_refuses_is_told_from_one_that_is_away(
    workspaces: Workspaces, repository: Repository, tmp_path: Path
) -> None:
    ref = attempt_ref("job", 1, 1)
    refuse_pushes(repository.path, "No refs of yours here.")
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({"changed": "one\n"})
        commit = workspace.commit_all(title="Do it", subtask_id=1, job_id="job")
        refusal = workspace.push(commit, ref)
        assert str(refusal) == "[remote rejected] (pre-receive hook declined): No refs of yours here."
        cache = workspace.keep(commit, ref)
        repository.path.rename(tmp_path / "away")
        with pytest.raises(GitError, match=r"push failed: '.*' does not appear to be a git repository"):
            workspace.push(commit, ref)
    assert git(cache, "rev-parse", ref).strip() == commit


def test_the_users_checkout_stays_as_it_is(workspaces: Workspaces, repository: Repository) -> None:
    repository.write({"changed": "half done by the user\n", "untracked": "too\n"})
    before = repository.git("status", "--porcelain"), repository.git("branch", "--all"), repository.git("stash", "list")
    with prepared(workspaces, repository) as (workspace, agent):
        assert (workspace.path / "changed").read_text() == "old\n"
        agent.write({"changed": "new\n"})
        finish(workspace, repository)
    after = repository.git("status", "--porcelain"), repository.git("branch", "--all"), repository.git("stash", "list")
    assert after == before


def test_an_agent_that_pushes_does_no_harm(workspaces: Workspaces, repository: Repository) -> None:
    head = repository.head
    with prepared(workspaces, repository) as (_, agent):
        agent.commit({"changed": "new\n"})
        assert agent.git("remote", "get-url", "origin") == str(repository.path)
        agent.git("push", "origin", "HEAD:refs/heads/main", "HEAD:refs/heads/other", check=False)
        agent.git("push", "--force", "--all", check=False)
    assert repository.git("for-each-ref", "--format=%(refname) %(objectname)") == f"refs/heads/main {head}"


def test_an_agent_sees_tags_and_branches_but_has_its_own(workspaces: Workspaces, repository: Repository) -> None:
    repository.git("tag", "v1.0")
    with prepared(workspaces, repository) as (_, one), prepared(workspaces, repository, 2) as (_, two):
        assert one.git("describe", "--tags") == "v1.0"
        assert one.git("rev-parse", "origin/main") == repository.head
        one.git("branch", "mine")
        one.write({"changed": "x"})
        one.git("stash")
        assert two.git("branch", "--list", "mine") == two.git("stash", "list") == ""


def _detach(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "--detach")
    agent.commit({"by-agent": "1\n"})


def _switch_branch(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "-b", "feature/mine")
    agent.commit({"by-agent": "1\n"})


def _orphan(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "--orphan", "fresh")
    agent.commit({"by-agent": "1\n"})


def _unborn(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "--orphan", "fresh")


def _index_lock(agent: Repository) -> None:
    agent.write({".git/index.lock": ""})


def _no_repository(agent: Repository) -> None:
    agent.commit({"by-agent": "1\n"})
    shutil.rmtree(agent.path / ".git")


def _repository_anew(agent: Repository) -> None:
    shutil.rmtree(agent.path / ".git")
    agent.git("init", "--quiet")
    agent.commit({"by-agent": "1\n"})


def _broken_index(agent: Repository) -> None:
    agent.write({".git/index": b"no index"})


def _broken_head(agent: Repository) -> None:
    agent.write({".git/HEAD": b"\xff\n"})


def _half_a_merge(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "-b", "one")
    agent.commit({"by-agent": "one\n"})
    agent.git("checkout", "--quiet", "-b", "two", "HEAD~1")
    agent.commit({"by-agent": "two\n"})
    agent.git("merge", "one", check=False)
    assert "<<<<<<<" in (agent.path / "by-agent").read_text()


def _half_a_rebase(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "-b", "one")
    agent.commit({"by-agent": "one\n"})
    agent.git("checkout", "--quiet", "-b", "two", "HEAD~1")
    agent.commit({"by-agent": "two\n"})
    agent.git("rebase", "one", check=False)
    assert (agent.path / ".git" / "rebase-merge").exists()


def _strange_configuration(agent: Repository) -> None:
    for key, value in {
        "core.bare": "true",
        "core.fileMode": "false",
        "core.hooksPath": "hooks",
        "commit.gpgSign": "true",
        "core.fsmonitor": "false-program",
        "user.name": "",
    }.items():
        agent.git("config", key, value)


def _index_flags(agent: Repository) -> None:
    agent.git("update-index", "--assume-unchanged", "changed")
    agent.git("update-index", "--skip-worktree", "kept")
    agent.write({"kept": "changed too\n"})


def _merge_of_its_own(agent: Repository) -> None:
    agent.git("checkout", "--quiet", "-b", "one")
    agent.commit({"by-agent": "one\n"})
    agent.git("checkout", "--quiet", "-b", "two", "HEAD~1")
    agent.commit({"other": "two\n"})
    agent.git("merge", "--quiet", "one")


STATES = [
    *(_detach, _switch_branch, _orphan, _unborn, _index_lock, _no_repository, _repository_anew, _broken_index),
    *(_broken_head, _half_a_merge, _half_a_rebase, _strange_configuration, _index_flags, _merge_of_its_own),
]


@pytest.mark.parametrize("leave", STATES, ids=lambda leave: leave.__name__.strip("_"))
def test_whatever_state_the_agent_leaves(workspaces: Workspaces, repository: Repository, leave) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        leave(agent)
        agent.write({"changed": "new\n", "deleted": None, "new": "new\n"})
        on_disk = {
            str(path.relative_to(workspace.path)): path.read_text().removesuffix("\n")
            for path in workspace.path.rglob("*")
            if path.is_file() and ".git" not in path.relative_to(workspace.path).parts
        }
        commit = finish(workspace, repository)
    assert {name: repository.content(commit, name) for name in repository.files(commit)} == on_disk
    assert on_disk["changed"] == "new"


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/subtask-1", "info/exclude"])
@pytest.mark.parametrize("trap", ["pipe", "device", "folder"])
def test_no_trap_in_the_agents_repository_holds_up_the_worker(
    workspaces: Workspaces, repository: Repository, name: str, trap: str
) -> None:
    with prepared(workspaces, repository) as (workspace, _):
        path = workspace.path / ".git" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if trap == "pipe":
            os.mkfifo(path)
        elif trap == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        assert read_plain_file(path) == b""


def test_history_without_the_base_is_put_on_it(workspaces: Workspaces, repository: Repository) -> None:
    base = repository.head
    with prepared(workspaces, repository) as (workspace, agent):
        _orphan(agent)
        commit = finish(workspace, repository)
    assert repository.git("rev-list", f"{base}..{commit}") == commit


def test_a_file_added_though_ignored_is_work(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({"a.log": "committed\n", "b.log": "staged\n", "c.log": "neither\n"})
        agent.git("add", "--force", "a.log")
        agent.git("commit", "--quiet", "--message", "a")
        agent.git("add", "--force", "b.log")
        commit = finish(workspace, repository)
    assert {"a.log", "b.log"} == repository.files(commit) - set(BASE_FILES)


def test_what_the_agents_repository_excludes_stays_out(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({".git/info/exclude": "scratch/\n", "scratch/note": "x", "changed": "new\n"})
        commit = finish(workspace, repository)
    assert repository.files(commit) == set(BASE_FILES)


@pytest.mark.parametrize("committed_by_agent", [False, True])
def test_a_nested_repository_keeps_its_files(
    workspaces: Workspaces, repository: Repository, committed_by_agent: bool
) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        nested = Repository.create(workspace.path / "nested", {"inner": "1\n", ".gitignore": "*.tmp\n"})
        nested.write({"uncommitted": "2\n", "x.tmp": "ignored"})
        Repository.create(workspace.path / "nested" / "deep" / "er", {"innermost": "3\n"})
        if committed_by_agent:
            agent.commit({}, "with a gitlink")
        Repository.create(workspace.path / "unborn").write({"file": "4\n"})
        Repository(workspace.path / "src").git("init", "--quiet")
        agent.write({"src/more.py": "5\n"})
        commit = finish(workspace, repository)
    assert repository.files(commit) - set(BASE_FILES) == {
        *("nested/inner", "nested/.gitignore", "nested/uncommitted", "nested/deep/er/innermost"),
        *("unborn/file", "src/more.py"),
    }
    assert "160000" not in repository.git("ls-tree", "-r", commit)


def test_a_linked_worktree_in_the_checkout_is_not_content(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        agent.git("worktree", "add", "--quiet", "-b", "aside", "trees/aside")
        agent.write({"changed": "new\n"})
        assert workspace.changed_files() == ["changed"]
        finish(workspace, repository)


def test_a_submodule_stays_one(workspaces: Workspaces, repository: Repository, tmp_path: Path) -> None:
    library = Repository.create(tmp_path / "library", {"lib": "1\n"})
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    repository.git(*add, str(library.path), "vendor/library")
    repository.commit({})
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({"changed": "new\n"})
        agent.git(*add, str(library.path), "vendor/second")
        assert workspace.changed_files() == [".gitmodules", "changed", "vendor/second"]
        commit = finish(workspace, repository)
    assert repository.git("rev-parse", f"{commit}:vendor/library", f"{commit}:vendor/second") == (
        f"{library.head}\n{library.head}"
    )


def test_a_sparse_checkout_deletes_nothing(workspaces: Workspaces, repository: Repository) -> None:
    repository.commit({"docs/text": "1\n"})
    with prepared(workspaces, repository) as (workspace, agent):
        agent.git("sparse-checkout", "set", "src")
        assert not (workspace.path / "docs").exists()
        agent.write({"src/code.py": "changed\n"})
        assert workspace.changed_files() == ["src/code.py"]
        finish(workspace, repository)


def test_names_modes_and_links_of_every_kind(workspaces: Workspaces, repository: Repository) -> None:
    names = ["new\nline", 'quo"te', "añb", "*", ":(top)x", " lead", "-rf", "a\\b"]
    with prepared(workspaces, repository) as (workspace, agent):
        agent.write({name: f"{name}\n" for name in names})
        (workspace.path / "link").symlink_to("/nonexistent/target")
        (workspace.path / "kept").chmod(0o755)
        os.mkfifo(workspace.path / "pipe")
        Path(os.fsdecode(os.fsencode(workspace.path) + b"/\xff")).write_bytes(bytes(range(256)) * 100_000)
        assert sorted(workspace.changed_files()) == sorted([*names, "link", "kept", "\\xff"])
        commit = finish(workspace, repository)
    assert repository.files(commit) == {*BASE_FILES, *names, "link", "\udcff"}
    assert repository.git("ls-tree", commit, "kept").startswith("100755")
    assert repository.git("ls-tree", commit, "link").startswith("120000")
    assert repository.git("cat-file", "-s", f"{commit}:\udcff") == "25600000"


def test_the_same_size_in_the_same_moment_is_noticed(workspaces: Workspaces, repository: Repository) -> None:
    with prepared(workspaces, repository) as (workspace, agent):
        stamp = (workspace.path / "changed").stat().st_mtime_ns
        agent.write({"changed": "NEW\n"})
        os.utime(workspace.path / "changed", ns=(stamp, stamp))
        assert workspace.changed_files() == ["changed"]


def test_a_shallow_repository(workspaces: Workspaces, repository: Repository, tmp_path: Path) -> None:
    repository.commit({"changed": "newer\n"})
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.path}", str(tmp_path / "shallow"))
    shallow = Repository(tmp_path / "shallow")
    with prepared(workspaces, shallow) as (workspace, agent):
        assert len(agent.git("log", "--format=%H").split()) == 1
        agent.commit({"changed": "by agent\n"})
        agent.write({"new": "1\n"})
        assert shallow.files(finish(workspace, shallow)) == {*BASE_FILES, "new"}


def test_without_a_repository_there_is_an_empty_folder(workspaces: Workspaces) -> None:
    with workspaces.prepare(job_id="job", subtask_id=1, attempt_number=1, repo=None, base_commit=None) as workspace:
        assert list(workspace.path.iterdir()) == []
        (workspace.path / "file").write_text("x")
        assert workspace.changed_files() == []
        assert workspace.private_dir.is_dir()
    assert not workspace.folder.exists()


def test_it_is_removed_also_after_a_failure(workspaces: Workspaces, repository: Repository) -> None:
    def work() -> None:
        with prepared(workspaces, repository) as (workspace, _):
            (workspace.private_dir / "prompt").write_text("secret")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert [path.name for path in workspaces.root.iterdir()] == ["claims.lock"]
    assert workspaces.sweep() == []


def test_it_is_removed_later_and_claimed_until_then(tmp_path: Path, repository: Repository) -> None:
    removals: list[Callable[[], None]] = []
    workspaces = Workspaces(tmp_path / "workspaces", RepositoryCache(tmp_path / "caches"), later=removals.append)
    with prepared(workspaces, repository) as (workspace, _):
        pass
    assert workspace.path.is_dir()
    assert workspaces.sweep() == []
    (remove,) = removals
    remove()
    assert [path.name for path in workspaces.root.iterdir()] == ["claims.lock"]


def test_removals_are_bounded_and_all_done_at_the_end() -> None:
    removal, gate, removed = Removal(2), threading.Event(), list[int]()

    def remove(number: int) -> None:
        assert gate.wait(30)
        removed.append(number)

    def bring_three() -> None:
        for number in range(3):
            removal.later(partial(remove, number))

    bringer = threading.Thread(target=bring_three)
    bringer.start()
    wait_until(lambda: removal._places._value == 0, "two wait")  # type: ignore[attr-defined]
    assert bringer.is_alive()
    gate.set()
    bringer.join(30)
    removal.close()
    assert removed == [0, 1, 2]


def test_a_password_in_the_url_is_not_given_to_the_agent(tmp_path: Path) -> None:
    from workers.checkouts import _configure

    (tmp_path / "config").write_text("")
    _configure(tmp_path, "https://me:hunter2@example.com/repo.git")
    config = (tmp_path / "config").read_text()
    assert "https://example.com/repo.git" in config
    assert "hunter2" not in config


def test_ten_at_once(workspaces: Workspaces, repository: Repository) -> None:
    def work(subtask_id: int) -> str:
        with prepared(workspaces, repository, subtask_id) as (workspace, agent):
            agent.write({f"file-{subtask_id}": "1\n"})
            return finish(workspace, repository, subtask_id)

    with ThreadPoolExecutor(10) as pool:
        commits = list(pool.map(work, range(10)))
    for subtask_id, commit in enumerate(commits):
        assert repository.files(commit) == {*BASE_FILES, f"file-{subtask_id}"}


def test_a_plain_attempt_costs_five_programs(
    workspaces: Workspaces, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten agents of a group end at the same moment, and each program more is waited for ten times."""
    with prepared(workspaces, repository) as (workspace, agent):
        finish(workspace, repository)  # what only a first attempt costs
    ran: list[str] = []

    def count(*args: Any, **kwargs: Any) -> GitResult:
        ran.append(str(args[0]))
        return run_git(*args, **kwargs)

    monkeypatch.setattr("workers.workspace.run_git", count)
    monkeypatch.setattr("workers.checkouts.run_git", count)
    monkeypatch.setattr("orchestrator.repository_cache.run_git", count)
    monkeypatch.setattr("orchestrator.push.run_git", count)
    with prepared(workspaces, repository, 2) as (workspace, agent):
        agent.write({"changed": "new\n"})
        commit = finish(workspace, repository, 2)
        assert workspace.changed_files(commit) == ["changed"]
    assert ran == ["checkout", "add", "write-tree", "diff-tree", "push"]
