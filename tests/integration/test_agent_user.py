"""A worker that is root gives its agents an account of their own: what they may, and what never happens as root."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from orchestrator.accounts import agent_account, of_process
from orchestrator.errors import ConfigurationError
from orchestrator.repository_cache import RepositoryCache
from tests.integration.test_spare_checkouts import wait_for_the_next_second
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import commit, git, new_repository, refuse_pushes, shell
from tests.support.services import open_temporary_folder
from tests.support.supervision import is_alive
from tests.support.waiting import wait_until
from workers import spare_checkouts
from workers.spare_checkouts import SpareCheckouts
from workers.workspaces import Workspaces

ACCOUNT: Final = "nobody"

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a program under another account"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Pytest's own are closed to other accounts."""
    folder = open_temporary_folder("orchestrator-account-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fleet(database: str, broker: str, folder: Path) -> Iterator[TestFleet]:
    one = open_fleet(database, broker, folder, agent_user=ACCOUNT)
    yield one
    one.close()


@pytest.fixture
def repository(folder: Path) -> Path:
    """Closed to the account: it gets what it needs from the cache."""
    (folder / "users").mkdir(mode=0o700)
    return new_repository(folder / "users" / "repository", {"README": "hello\n"})


def run(fleet: TestFleet, repository: Path | None, *subtasks: dict[str, Any], **plan: Any) -> str:
    if "dispatcher" not in fleet.processes:
        fleet.start_dispatcher()
        fleet.start_worker()
    repo = {} if repository is None else {"repo": str(repository)}
    return fleet.submit({"title": "One", **repo, "retry_failed_agents": False, "subtasks": [*subtasks], **plan})


def attempt_of(fleet: TestFleet, job_id: str, subtask_id: int = 1) -> dict[str, Any]:
    rows = fleet.rows("SELECT * FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    return next(row for row in rows if row["subtask_id"] == subtask_id)


def show(repository: Path, job_id: str, path: str) -> str:
    return git(repository, "show", f"orchestrator/{job_id}:{path}")


def test_agent_and_checks_run_under_the_account_and_the_work_is_merged(fleet: TestFleet, repository: Path) -> None:
    says_who = 'echo "$(id -un) $(id -gn) $USER $LOGNAME $HOME $SHELL ${TMPDIR-none}"'
    is_account = f'test "$(id -un)" = {ACCOUNT}; git status --porcelain; git log -1 --format=%an'
    job_id = run(
        fleet,
        repository,
        shell(1, f"{says_who} > who.txt; cat $ORCHESTRATOR_PROMPT_FILE > prompt.txt", check=is_account),
        shell(2, "echo two > two.txt; git add two.txt; git commit -qm 'By the agent'; echo loose > loose.txt"),
        group_checks={1: f"{is_account}; touch made-by-the-check; grep two two.txt"},
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    entry = pwd.getpwnam(ACCOUNT)
    group = subprocess.run(["id", "-gn", ACCOUNT], capture_output=True, text=True, check=True).stdout.strip()
    said = f"{ACCOUNT} {group} {ACCOUNT} {ACCOUNT} {entry.pw_dir} {entry.pw_shell} none\n"
    assert show(repository, job_id, "who.txt") == said
    assert "Step 1" in show(repository, job_id, "prompt.txt")
    assert show(repository, job_id, "loose.txt") == "loose\n"
    assert "By the agent" in git(repository, "log", "--format=%s", f"orchestrator/{job_id}")


def test_what_is_the_workers_is_closed_to_its_agents(fleet: TestFleet, repository: Path, folder: Path) -> None:
    settings = folder / "fleet.toml"
    settings.write_text("log_format = 'text'\n")
    settings.chmod(0o600)
    fleet.start_dispatcher()
    worker = fleet.start_worker(ORCHESTRATOR_CONFIG=str(settings), A_KEY="of-the-worker")
    state = folder / "state"
    files = [
        f"/proc/{worker.pid}/environ",
        f"/proc/{worker.pid}/mem",
        settings,
        "$cache/config",
        "../outgoing.git/config",
    ]
    folders = [state, state / "workspaces", state / "repositories", "$cache", "..", "../outgoing.git"]
    look = (
        "set +e; cache=$(dirname $(cat .git/objects/info/alternates))\n"
        f"for it in {' '.join(map(str, files))}; do head -c 1 $it && echo OPEN $it >> open.txt; done\n"
        f"for it in {' '.join(map(str, folders))}; do ls $it && echo OPEN $it >> open.txt; done\n"
        "env | grep -E 'of-the-worker|ORCHESTRATOR_(BROKER|DATABASE)' >> open.txt\n"
        "test -r $cache/objects && git log -1 --format=%s >> there.txt; true"
    )
    job_id = run(fleet, repository, shell(1, look))
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert show(repository, job_id, "there.txt") == "change\n"
    assert show(repository, job_id, "open.txt") == ""


def witness(folder: Path) -> tuple[Path, Path]:
    """A program that notes under which account it was run, and its notes."""
    place = folder / "witness"
    place.mkdir()
    place.chmod(0o1777)
    program = place / "program"
    program.write_text(f'#!/bin/sh\necho "$(id -u)" >> {place}/notes-$(id -u)\ncat\n')
    program.chmod(0o755)
    return program, place


def test_what_an_agent_writes_into_repositories_never_runs_as_root(
    fleet: TestFleet, repository: Path, folder: Path
) -> None:
    program, place = witness(folder)
    plant = "\n".join(
        [
            "for git in .git ../record.git; do",
            "  for key in core.fsmonitor core.sshCommand core.pager core.editor diff.external filter.w.clean filter.w.smudge"
            " filter.w.process uploadpack.packObjectsHook core.gitProxy gpg.program credential.helper core.askPass; do",
            f"    git config --file $git/config $key {program}",
            "  done",
            "  mkdir -p $git/hooks $git/info",
            "  for hook in pre-commit post-checkout post-index-change pre-push reference-transaction post-commit; do",
            f"    cp {program} $git/hooks/$hook",
            "  done",
            "  git config --file $git/config core.hooksPath $PWD/$git/hooks",
            "  echo '* filter=w' >> $git/info/attributes",
            "done",
            "echo '* filter=w' > .gitattributes",
            "echo new > new.txt; echo changed > README",
        ]
    )
    job_id = run(
        fleet,
        repository,
        shell(1, plant),
        shell(2, "echo second > second.txt", group=2),
        group_checks={1: "git status"},
    )
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert show(repository, job_id, "new.txt") == "new\n"
    ran_as = {path.name for path in place.glob("notes-*")}
    assert ran_as == {f"notes-{pwd.getpwnam(ACCOUNT).pw_uid}"}, "what was planted had its chance, and never as root"


def test_a_link_leads_the_worker_to_nothing_that_only_root_may_read_or_write(
    fleet: TestFleet, repository: Path, folder: Path
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "exclude").write_text("*.txt\n")
    objects = folder / "closed-objects"
    objects.mkdir(mode=0o700)
    job_id = run(
        fleet,
        repository,
        shell(1, f"rm -rf .git/info; ln -s {closed} .git/info; echo mine > mine.txt; ln -s {closed}/exclude link"),
        shell(
            2, f"mv ../record.git/objects ../record.git/away; ln -s {objects} ../record.git/objects; echo 2 > two.txt"
        ),
        shell(3, "rm -rf ../record.git/info; touch ../record.git/info; echo 3 > three.txt"),
        on_failure="continue",
    )
    fleet.wait_for_end(job_id)
    assert show(repository, job_id, "mine.txt") == "mine\n"
    assert show(repository, job_id, "link") == f"{closed}/exclude"
    for attempt in (attempt_of(fleet, job_id, 2), attempt_of(fleet, job_id, 3)):
        assert (attempt["status"], "surprise" in attempt["error"]) == ("failed", False)
    assert list(objects.iterdir()) == []


@pytest.mark.parametrize("end", ["cancel", "kill -9 of the worker"])
def test_an_agent_ends_with_all_that_left_it(fleet: TestFleet, folder: Path, end: str) -> None:
    _, place = witness(folder)
    wait = f"trap '' TERM; echo $$ > {place}/$0.pid; while :; do sleep 0.2; done"
    command = "\n".join(
        [
            f"setsid sh -c {shlex.quote(wait)} daemon & env -i /usr/bin/setsid sh -c {shlex.quote(wait)} nameless &",
            f"exec sh -c {shlex.quote(wait)} agent",
        ]
    )
    job_id = run(fleet, None, shell(1, command))
    names = ("agent", "daemon", "nameless")
    files = [place / f"{name}.pid" for name in names]
    wait_until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files), "all of them run")
    pids = [int(file.read_text()) for file in files]
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {pwd.getpwnam(ACCOUNT).pw_uid}
    if end == "cancel":
        assert fleet.program("cancel", job_id).returncode == 0
        assert fleet.wait_for_end(job_id)["status"] == "cancelled"
    else:
        fleet.stop("worker", signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), "all of them have ended")
    if end != "cancel":
        assert fleet.program("cancel", job_id).returncode == 0
        fleet.start_worker("next")
    wait_until(lambda: not list((folder / "state" / "workspaces").glob(f"{job_id}*")), "the workspace is removed")


def test_limits_hold_and_nothing_of_the_workspace_is_left(database: str, broker: str, folder: Path) -> None:
    fleet = open_fleet(database, broker, folder, agent_user=ACCOUNT, max_workspace_bytes=2**20)
    try:
        disk = "head -c 4000000 /dev/zero > large; mkdir -m 0 shut; sleep 60"
        many = "for n in $(seq 40); do sleep 60 & done; wait"
        job_id = run(fleet, None, shell(1, disk), shell(2, many, limits={"processes": 20}), on_failure="continue")
        fleet.wait_for_end(job_id)
        for subtask_id, words in ((1, "filled its workspace"), (2, "processes and threads")):
            attempt = attempt_of(fleet, job_id, subtask_id)
            assert (attempt["status"], words in attempt["error"]) == ("resource_limit", True)
        wait_until(lambda: not list((folder / "state" / "workspaces").glob(f"{job_id}*")), "the workspaces are removed")
    finally:
        fleet.close()


GOES_ON = """\
[ "$1" = --version ] && {{ echo "2.1.330 (Claude Code)"; exit; }}
session=$CLAUDE_CONFIG_DIR/projects/here/{session}.jsonl
echo '{{"type":"system","subtype":"init","session_id":"{session}"}}'
id -un >> who.txt
if [[ " $* " == *" --resume {session} "* ]]; then
    grep -q remembered "$session" && grep -q first a.txt && echo second >> a.txt
    echo '{{"type":"result","subtype":"success","session_id":"{session}","result":"Done."}}'
else
    mkdir -p "$(dirname "$session")"; echo '{{"remembered":1}}' > "$session"; echo first > a.txt; sleep 60
fi
"""


def stand_in_for_claude(folder: Path, does: str) -> dict[str, str]:
    folder.mkdir()
    file = folder / "claude"
    file.write_text(f"#!/bin/bash\n{does}")
    file.chmod(0o755)
    return {"name": "claude-code", "path": str(file)}


def test_an_agent_that_was_cut_off_goes_on_with_its_session_and_its_work(fleet: TestFleet, repository: Path) -> None:
    agent = stand_in_for_claude(fleet.folder / "program", GOES_ON.format(session="a-session"))
    plan = {"retry_failed_agents": True, "max_retries": 1}
    job_id = run(fleet, repository, shell(1, "", agent=agent, timeout=3, permissions="full"), **plan)
    assert fleet.wait_for_end(job_id)["status"] == "completed", fleet.describe(job_id)
    assert show(repository, job_id, "a.txt") == "first\nsecond\n"
    assert show(repository, job_id, "who.txt") == f"{ACCOUNT}\n{ACCOUNT}\n"


def test_a_program_that_the_account_may_not_start_is_missing(fleet: TestFleet, repository: Path) -> None:
    agent = stand_in_for_claude(fleet.folder / "program", "true")
    (fleet.folder / "program").chmod(0o700)
    job_id = run(fleet, repository, shell(1, "", agent=agent))
    fleet.wait_for_end(job_id)
    attempt = attempt_of(fleet, job_id)
    assert (attempt["status"], "no program that can be run here" in attempt["error"]) == ("agent_missing", True)


def test_work_that_the_repository_refuses_is_kept(fleet: TestFleet, repository: Path, folder: Path) -> None:
    refuse_pushes(repository, "not today")
    job_id = run(fleet, repository, shell(1, "echo kept > kept.txt"))
    fleet.wait_for_end(job_id)
    assert "not today" in attempt_of(fleet, job_id)["error"]
    [cache] = (folder / "state" / "repositories").glob("*.git")
    assert git(cache, "show", f"refs/orchestrator/{job_id}/1/1:kept.txt") == "kept\n"


def as_account(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True, **of_process(agent_account(ACCOUNT))
    )
    return done.stdout


def test_a_spare_checkout_is_the_accounts_too(repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_checkouts, "WORTH_SECONDS", 0.0)
    root, account = folder / "workspaces", agent_account(ACCOUNT)
    root.mkdir(mode=0o711)
    spares = SpareCheckouts(root, most=1)
    cache = RepositoryCache(folder / "caches", for_account=True)
    workspaces = Workspaces(root, cache, spares=spares, account=account)
    taken: list[Path] = []
    try:
        for number in (1, 2):
            base = git(repository, "rev-parse", "HEAD").strip()
            with workspaces.prepare(
                job_id="job", subtask_id=number, attempt_number=1, repo=str(repository), base_commit=base
            ) as workspace:
                assert as_account("git", "status", "--porcelain", cwd=workspace.path) == ""
                assert (workspace.path / "README").owner() == ACCOUNT
                taken.append(workspace.path)
                if number == 1:
                    wait_until(lambda: len(spares._kept) == 1, "a spare is ready")
                    inode = spares._kept[0].spare.checkout.stat().st_ino
                    wait_for_the_next_second(spares, folder)
                    commit(repository, {"README": "changed\n"})
                else:
                    assert workspace.path.stat().st_ino == inode, "the spare was taken"
    finally:
        spares.close()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: {"ORCHESTRATOR_AGENT_USER": "no-such-account"}, "There is no account no-such-account"),
        (lambda folder: {"ORCHESTRATOR_WORK_DIR": str(closed(folder) / "work")}, "is closed to the account nobody"),
        (lambda folder: {"ORCHESTRATOR_WORK_DIR": "/tmp"}, "The folder /tmp must belong to root"),
        (lambda folder: {"ORCHESTRATOR_CONFIG": str(open_file(folder))}, "may read"),
        (lambda folder: {"ORCHESTRATOR_STATE_DIR": str(with_postgres(folder))}, "is that of the PostgreSQL"),
    ],
)
@pytest.mark.parametrize("role", ["worker", "dispatcher"])
def test_neither_worker_nor_dispatcher_begins_with_what_can_not_hold(
    fleet: TestFleet, folder: Path, role: str, prepare: Callable[[Path], dict[str, str]], words: str
) -> None:
    done = fleet.program(role, **prepare(folder))
    said = [line for line in done.stderr.splitlines() if words in line]
    assert (done.returncode, len(said), "Traceback" in done.stderr) == (2, 1, False), done.stderr


def closed(folder: Path) -> Path:
    (folder / "closed").mkdir(mode=0o700)
    return folder / "closed"


def open_file(folder: Path) -> Path:
    file = folder / "fleet.toml"
    file.write_text('database_url = "postgresql://orchestrator:secret@db.example.org/name"\n')
    return file


def with_postgres(folder: Path) -> Path:
    data = folder / "other-state" / "postgres"
    data.mkdir(parents=True)
    shutil.chown(data, ACCOUNT)
    return data.parent


def test_who_is_not_root_can_not_choose_an_account() -> None:
    child = os.fork()
    if child == 0:
        os.setuid(pwd.getpwnam(ACCOUNT).pw_uid)
        try:
            agent_account(ACCOUNT)
        except ConfigurationError as error:
            os._exit(error.exit_code)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ConfigurationError.exit_code


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "run under the account nobody. Its home /nonexistent is missing."),
        ({"ORCHESTRATOR_AGENT_USER": "root"}, "run as root"),
        ({"ORCHESTRATOR_AGENT_USER": "root", "ORCHESTRATOR_SANDBOXED": "true"}, None),
    ],
)
def test_a_worker_says_at_its_start_who_its_agents_are_and_how_it_finds_them(
    fleet: TestFleet, said: dict[str, str], words: str | None
) -> None:
    fleet.start_worker(**said)
    log = fleet.folder / "worker.log"
    fleet.start_dispatcher()
    fleet.wait_for_end(fleet.submit({"title": "One", "subtasks": [shell(1, "true")]}))
    lines = log.read_text().splitlines()
    assert [words in line for line in lines if "Agents and checks" in line] == [True] * bool(words)
    assert len([line for line in lines if "Attempts run with" in line or "Attempts run in" in line]) == 1
