"""Attempts that end at the same moment push together, and each of them hears what became of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.git import attempt_ref
from orchestrator.push import Refusal
from orchestrator.repository_cache import RepositoryCache
from tests.support.git_checkout import Repository
from tests.support.waiting import wait_until
from workers.pushes import Pushes
from workers.workspace import Workspace
from workers.workspaces import Workspaces

WATCH_AND_WAIT = """#!/bin/sh
wc -l >> came
while test -e closed; do sleep 0.01; done
"""
"""A hook that notes how many refs each push brings, and lets none in while the gate is closed."""


class Crowd:
    """Finished attempts at one repository; `push` lets each of them do so in a thread of its own."""

    def __init__(self, repository: Repository, workspaces: Workspaces, resources: ExitStack) -> None:
        self.repository = repository
        self.pushes = Pushes()
        self.commits: dict[int, tuple[Workspace, str]] = {}
        self._pool = resources.enter_context(ThreadPoolExecutor(10))
        self._gate = repository.path / ".git" / "closed"
        resources.callback(self._gate.unlink, missing_ok=True)
        for n in range(5):
            repo, base = str(repository.path), repository.head
            prepared = workspaces.prepare(job_id="job", subtask_id=n, attempt_number=1, repo=repo, base_commit=base)
            workspace = resources.enter_context(prepared)
            Repository(workspace.path).write({f"made-{n}": f"{n}\n"})
            self.commits[n] = (workspace, workspace.commit_all(title="Do it", subtask_id=n, job_id="job"))
        self.add_hook("pre-receive", WATCH_AND_WAIT)

    def add_hook(self, name: str, text: str) -> None:
        hook = self.repository.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(text)
        hook.chmod(0o755)

    def push(self, n: int) -> Future[Refusal | None]:
        workspace, commit = self.commits[n]
        return self._pool.submit(self.pushes.push, workspace, commit, attempt_ref("job", n, 1))

    def hold_the_first(self) -> Future[Refusal | None]:
        """Begin to push the first one, which comes as far as the gate."""
        self._gate.write_text("")
        first = self.push(0)
        wait_until(lambda: self.came == [1], "the first push has come to the gate")
        return first

    def open_the_gate(self, *, when_waiting: int) -> None:
        waiting = self.pushes._together._waiting.values()
        wait_until(lambda: sum(map(len, waiting)) == when_waiting, f"{when_waiting} wait for the first")
        self._gate.unlink()

    @property
    def came(self) -> list[int]:
        """How many refs each push has brought."""
        came = self.repository.path / ".git" / "came"
        return [int(line) for line in came.read_text().split()] if came.exists() else []

    @property
    def pushed(self) -> dict[int, str]:
        names = "--format=%(refname) %(objectname)"
        refs = self.repository.git("for-each-ref", names, "refs/orchestrator").splitlines()
        return {int(line.split("/")[3]): line.split()[1] for line in refs}

    def has_all_but(self, *missing: int) -> bool:
        return self.pushed == {n: commit for n, (_, commit) in self.commits.items() if n not in missing}


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    repository = Repository.create(tmp_path / "repository", {"file": "1\n"})
    workspaces = Workspaces(tmp_path / "workspaces", RepositoryCache(tmp_path / "caches"))
    with ExitStack() as resources:
        yield Crowd(repository, workspaces, resources)


def test_those_who_come_while_one_pushes_are_one_push(crowd: Crowd) -> None:
    first = crowd.hold_the_first()
    others = [crowd.push(n) for n in range(1, 5)]
    crowd.open_the_gate(when_waiting=4)
    assert [push.result(30) for push in [first, *others]] == [None] * 5
    assert crowd.came == [1, 4]
    assert crowd.has_all_but()
    crowd.repository.git("fsck", "--strict")


def test_who_is_refused_is_so_alone(crowd: Crowd) -> None:
    crowd.add_hook("update", "#!/bin/sh\ncase $1 in */2/1) echo 'Not this one.' >&2; exit 1; esac\n")
    taken = crowd.repository.commit({"file": "2\n"})
    crowd.repository.git("update-ref", attempt_ref("job", 3, 1), taken)
    first = crowd.hold_the_first()
    others = [crowd.push(n) for n in range(1, 5)]
    crowd.open_the_gate(when_waiting=4)
    answers = [push.result(30) for push in [first, *others]]
    assert [answer and answer.reason for answer in answers] == [
        None,
        None,
        "[remote rejected] (hook declined)",
        "[rejected] (stale info)",
        None,
    ]
    crowd.repository.git("update-ref", "-d", attempt_ref("job", 3, 1), taken)
    assert crowd.has_all_but(2, 3)


def test_nobody_fails_because_anothers_work_is_gone(crowd: Crowd) -> None:
    workspace, commit = crowd.commits[2]
    (workspace.record / "objects" / commit[:2] / commit[2:]).unlink()
    first = crowd.hold_the_first()
    others = {n: crowd.push(n) for n in range(1, 5)}
    crowd.open_the_gate(when_waiting=4)
    assert others.pop(2).result(30) is not None
    assert [push.result(30) for push in [first, *others.values()]] == [None] * 4
    assert crowd.has_all_but(2)


def test_nobody_waits_for_long(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's push may be large, or its hook slow."""
    monkeypatch.setattr(crowd.pushes._together, "_patience_seconds", 0.01)
    first = crowd.hold_the_first()
    second = crowd.push(1)
    wait_until(lambda: crowd.came == [1, 1], "the second has come to the gate as well")
    crowd.open_the_gate(when_waiting=0)
    assert [first.result(30), second.result(30)] == [None, None]
    assert crowd.has_all_but(2, 3, 4)
