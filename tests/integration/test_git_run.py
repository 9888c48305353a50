"""Git runs the same everywhere: nothing of the user's environment changes a result, and nothing secret is shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import ConfigurationError, GitError
from orchestrator.git import attempt_ref, last_line, require_git, run_git
from tests.support.git_checkout import Repository
from tests.support.git_server import IN_A_URL, PASSWORD, TOKEN, USER, GitServer
from tests.support.waiting import wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repository", {"file": "one\n"})


def test_variables_of_git_do_not_leak_in(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    assert run_git("rev-parse", "HEAD", cwd=repository.path).text == repository.head


def test_addresses_of_the_fleet_do_not_leak_in(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("HOUSE_VARIABLE", "stays")
    said = run_git("-c", "alias.env=!env", "env", cwd=repository.path, user_config=True).text
    assert "HOUSE_VARIABLE=stays" in said
    assert "hunter2" not in said


def test_user_configuration_counts_only_where_it_is_asked_for(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[user]\n\tname = From The User\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    ask = ("config", "--get", "user.name")
    assert run_git(*ask, cwd=repository.path, check=False).text == ""
    assert run_git(*ask, cwd=repository.path, user_config=True).text == "From The User"


def test_hooks_of_a_repository_do_not_run(repository: Repository) -> None:
    hook = repository.path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repository.path}/ran\n")
    hook.chmod(0o755)
    run_git("checkout", "--quiet", "-b", "other", cwd=repository.path, user_config=True)
    assert not (repository.path / "ran").exists()


def test_a_failure_says_what_git_said(repository: Repository) -> None:
    with pytest.raises(GitError) as caught:
        run_git("cat-file", "blob", "no-such-thing", cwd=repository.path)
    assert caught.value.message == "git cat-file failed: Not a valid object name no-such-thing."
    assert caught.value.context["exit_code"] == 128


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """With an empty repository `repo.git`, which may be pushed to."""
    bare = tmp_path / "served" / "repo.git"
    run_git("init", "--quiet", "--bare", "--initial-branch=main", bare, cwd=None)
    run_git("config", "http.receivepack", "true", cwd=bare)
    one = GitServer(tmp_path / "served")
    yield one
    one.close()


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Callable[[str, str], Mapping[str, str]]]:
    """Lets git's helper of the user know one name and password; what it is told is written into `told`."""

    def knows(name: str, password: str) -> Mapping[str, str]:
        program = tmp_path / "helper"
        program.write_text(
            "#!/bin/sh\n"
            f'echo "$1" >> {tmp_path}/told; said=$(tee -a {tmp_path}/told); test "$1" = get || exit 0\n'
            f"""case "$said" in *username=*) case "$said" in *"username={name}"*) ;; *) exit 0;; esac;; esac\n"""
            f"echo 'username={name}'; echo 'password={password}'\n"
        )
        program.chmod(0o755)
        (tmp_path / "config").write_text(f"[credential]\n\thelper = {program}\n")
        return {"GIT_CONFIG_GLOBAL": str(tmp_path / "config")}

    return knows


@pytest.mark.parametrize("login", [IN_A_URL, TOKEN, f"{TOKEN}:"], ids=["password", "token", "token and colon"])
def test_a_secret_in_a_url_stands_on_no_command_line(
    login: str, server: GitServer, helper: Callable[[str, str], Mapping[str, str]], tmp_path: Path
) -> None:
    """Git finds its way with it all the same, whatever helper of the user's would answer first, and keeps it nowhere."""
    source = Repository.create(tmp_path / "source", {"file": "one\n"})
    env, url = helper("nobody", "wrong"), server.url("repo.git", login)
    words = ("push", "--quiet", "--", url, "HEAD:refs/heads/main")
    run_git(*words, cwd=source.path, user_config=True, env=env)
    listing = run_git("ls-remote", "--", url, cwd=tmp_path, user_config=True, env=env).text
    run_git("clone", "--quiet", "--", url, tmp_path / "clone", cwd=None, user_config=True, env=env)
    assert f"{source.head}\trefs/heads/main" in listing
    assert (tmp_path / "clone" / "file").read_text() == "one\n"
    assert "hunter2" not in (tmp_path / "clone" / ".git" / "config").read_text()
    assert not (tmp_path / "told").exists()
    assert server.answered > 3
    assert server.seen_in == set()


def test_a_name_without_a_password_is_asked_about(
    server: GitServer, helper: Callable[[str, str], Mapping[str, str]], tmp_path: Path
) -> None:
    """The helper knows the password of that name, and is told which name; settings by variables stay."""
    env, url = helper(USER, PASSWORD), server.url("repo.git", IN_A_URL.partition(":")[0])
    more = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "house.colour", "GIT_CONFIG_VALUE_0": "red"}
    run_git("clone", "--quiet", "--", url, tmp_path / "clone", cwd=None, user_config=True, env={**env, **more})
    assert f"username={USER}" in (tmp_path / "told").read_text()
    assert "store" in (tmp_path / "told").read_text()
    assert server.seen_in == set()
    with pytest.raises(GitError, match="Password"):
        run_git("ls-remote", "--", server.url("repo.git", "somebody"), cwd=tmp_path, user_config=True, env=env)


def test_a_token_that_is_refused_is_not_shown(server: GitServer, tmp_path: Path) -> None:
    env = {"GIT_CONFIG_GLOBAL": os.devnull}
    with pytest.raises(GitError) as caught:
        run_git(
            "ls-remote", "--", server.url("repo.git", "another-token-0123"), cwd=tmp_path, user_config=True, env=env
        )
    assert "127.0.0.1" in str(caught.value.context)
    assert "another-token-0123" not in f"{caught.value} {caught.value.context}"


def test_a_password_in_a_url_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(GitError) as caught:
        run_git("ls-remote", "http://me:hunter2@127.0.0.1:1/repo.git", cwd=tmp_path, user_config=True)
    assert "127.0.0.1" in str(caught.value.context)
    assert "hunter2" not in f"{caught.value} {caught.value.context}"


def test_a_command_that_hangs_ends_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(GitError, match=r"did not end within 2 s"):
        run_git("ls-remote", "host:repo.git", cwd=tmp_path, user_config=True, timeout_seconds=2)
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: not _runs(child), "git's ssh has ended")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_missing_git_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"git was not found on the PATH\. Install git"):
        require_git()


def test_old_git_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\necho git version 2.37.9\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigurationError, match=r"git version 2\.37\.9 was found, 2\.38 or newer"):
        require_git()


def test_the_version_of_this_git_is_good() -> None:
    assert require_git()[0].isdigit()


def test_an_attempt_has_a_ref_outside_of_branches() -> None:
    assert attempt_ref("3f2a9c", 2, 1) == "refs/orchestrator/3f2a9c/2/1"


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("fatal: it broke.\nhint: do this", "it broke"),
        ("error: first\nfatal: the reason\nmore", "the reason"),
        ("remote: no entry", "no entry"),
        (
            "ssh: no such host\nfatal: Could not read from remote repository.\n\nand the repository exists.",
            "ssh: no such host",
        ),
        (
            "error: remote unpack failed: it is read-only\nTo a\n ! [remote rejected] b -> c (unpacker error)\n"
            "error: failed to push some refs to 'a'",
            "remote unpack failed: it is read-only",
        ),
        (
            "To a\n ! [remote rejected] b -> c (pre-receive hook declined)\nerror: failed to push some refs to 'a'",
            "[remote rejected] b -> c (pre-receive hook declined)",
        ),
        ("", ""),
    ],
)
def test_the_line_that_matters(stderr: str, line: str) -> None:
    assert last_line(stderr) == line
