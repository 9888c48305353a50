"""Merging attempts: nothing is dropped silently, merging twice gives the same, a branch that moved is never overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator import repository_cache
from orchestrator.commit_object import write_commit
from orchestrator.errors import GitError, RepositoryError
from orchestrator.git import IDENTITY, GitResult, attempt_ref, run_git
from orchestrator.merge import apart, branches
from orchestrator.merge.branches import (
    AttemptToMerge,
    MergedAttempt,
    MergeResult,
    MergeWorkspace,
    begin_branch,
    merge_attempts,
    push_branch,
)
from orchestrator.repository_cache import RepositoryCache
from tests.support.git_checkout import Repository

BRANCH = "orchestrator/job"
ENDED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Files = dict[str, str | bytes | None]


@dataclass
class Bench:
    """A repository with attempts of one job, and what is needed to merge them."""

    repository: Repository
    cache: RepositoryCache
    root: Path

    def attempt(self, subtask_id: int, files: Files, *, base: str = "main", shell: str = "") -> AttemptToMerge:
        """An attempt whose agent ran the shell line, then wrote the files, at `base`."""
        self.repository.git("checkout", "--quiet", "--detach", base)
        if shell:
            self.repository.git("-c", f"alias.run=!{shell}", "run")
        self.repository.write(files)
        commit = self.repository.commit({}, f"work of {subtask_id}")
        ref = attempt_ref("job", subtask_id, 1)
        self.repository.git("update-ref", ref, commit)
        self.repository.git("checkout", "--quiet", "--force", "main")
        return AttemptToMerge(subtask_id, f"Subtask {subtask_id}", commit, ref, ENDED + timedelta(minutes=subtask_id))

    @contextmanager
    def workspace(
        self, *attempts: AttemptToMerge, head: str | None = None, form: str = "file://{}"
    ) -> Iterator[MergeWorkspace]:
        """By its path the repository lends its objects, by a URL they are fetched."""
        with MergeWorkspace.open(
            *(self.root, self.cache),
            repo=form.format(self.repository.path),
            job_id="job",
            head=head or self.repository.head,
            attempts=attempts,
        ) as workspace:
            yield workspace

    def merge(self, *attempts: AttemptToMerge, head: str | None = None) -> MergeResult:
        """Merge, push, and merge once more from nothing, with borrowed objects, each branch by git's own merge: the
        commits are the same."""
        head = head or self.repository.head
        with self.workspace(*attempts, head=head) as workspace:
            result = merge_attempts(workspace, attempts=attempts, head=head)
            push_branch(workspace, str(self.repository.path), BRANCH, new=result.head, expected=self.branch_head())
        shutil.rmtree(self.cache.root)
        with self.workspace(*attempts, head=head, form="{}") as workspace, pytest.MonkeyPatch.context() as patch:
            patch.setattr(branches, "how_many_are_apart", lambda *_: 0)
            assert merge_attempts(workspace, attempts=attempts, head=head) == result
        return result

    def branch_head(self) -> str | None:
        return self.repository.git("rev-parse", "--quiet", "--verify", f"refs/heads/{BRANCH}", check=False) or None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    repository = Repository.create(tmp_path / "repository", BASE)
    return Bench(repository, RepositoryCache(tmp_path / "caches"), tmp_path / "workspaces")


LINES = "".join(f"line {number}\n" for number in range(1, 10))
BASE: Files = {"text": LINES, "other": LINES.replace("line", "row"), "image": b"\0base", "notes.log": "start\n"}


def edited(*changes: tuple[int, str]) -> str:
    lines = LINES.splitlines()
    for number, text in changes:
        lines[number - 1] = text
    return "\n".join(lines) + "\n"


ONE, TWO = edited((5, "ONE")), edited((5, "TWO"))
UNION = "*.log merge=union\n"


@dataclass(frozen=True)
class Case:
    """Two subtasks' work on the same base. `conflicts`: path → kind; else `merged`: path → its lines (None: gone)."""

    name: str
    one: Files
    two: Files
    conflicts: dict[str, str] | None = None
    merged: dict[str, str | bytes | None] | None = None
    base: Files | None = None
    one_runs: str = ""
    two_runs: str = ""
    modes: dict[str, str] | None = None


CASES = [
    Case("same line", {"text": ONE}, {"text": TWO}, {"text": "content"}),
    Case("adjacent lines", {"text": ONE}, {"text": edited((6, "TWO"))}, {"text": "content"}),
    Case("lines apart", {"text": ONE}, {"text": edited((9, "TWO"))}, merged={"text": edited((5, "ONE"), (9, "TWO"))}),
    Case("same change twice", {"text": ONE}, {"text": ONE}, merged={"text": ONE}),
    Case("both append", {"notes.log": "start\n1\n"}, {"notes.log": "start\n2\n"}, {"notes.log": "content"}),
    Case(
        "union",
        {"notes.log": "start\n1\n"},
        {"notes.log": "start\n2\n"},
        merged={"notes.log": "start\n1\n2\n"},
        base={".gitattributes": UNION},
    ),
    Case(
        "union in a nested attributes file",
        {"deep/er/notes.log": "start\n1\n"},
        {"deep/er/notes.log": "start\n2\n", "notes.log": "start\n2\n"},
        merged={"deep/er/notes.log": "start\n1\n2\n", "notes.log": "start\n2\n"},
        base={"deep/.gitattributes": UNION, "deep/er/notes.log": "start\n"},
    ),
    Case(
        "union added by the first attempt",
        {"deep/.gitattributes": UNION, "deep/notes.log": "start\n1\n"},
        {"deep/notes.log": "start\n2\n"},
        merged={"deep/notes.log": "start\n1\n2\n"},
        base={"deep/notes.log": "start\n"},
    ),
    Case(
        "union taken away by the first attempt",
        {"deep/.gitattributes": None, "deep/notes.log": "start\n1\n"},
        {"deep/notes.log": "start\n2\n"},
        {"deep/notes.log": "content"},
        base={"deep/.gitattributes": UNION, "deep/notes.log": "start\n"},
    ),
    Case("binary", {"image": b"\0one"}, {"image": b"\0two"}, {"image": "binary"}),
    Case(
        "text declared binary",
        {"text": ONE},
        {"text": edited((9, "TWO"))},
        {"text": "binary"},
        base={".gitattributes": "text binary\n"},
    ),
    Case("delete against modify", {"text": None}, {"text": TWO}, {"text": "modify/delete"}),
    Case("modify against delete", {"text": ONE}, {"text": None}, {"text": "modify/delete"}),
    Case("both delete", {"text": None}, {"text": None}, merged={"text": None}),
    Case(
        "rename against modify",
        {},
        {"text": TWO},
        merged={"text": None, "renamed": TWO},
        one_runs="git mv text renamed",
    ),
    Case(
        "modify against rename",
        {"text": ONE},
        {},
        merged={"text": None, "renamed": ONE},
        two_runs="git mv text renamed",
    ),
    Case(
        "rename and modify against the same line",
        {"renamed": ONE},
        {"text": TWO},
        {"renamed": "content"},
        one_runs="git mv text renamed",
    ),
    Case(
        "rename against rename",
        {},
        {},
        {"text": "rename/rename"},
        one_runs="git mv text one",
        two_runs="git mv text two",
    ),
    Case(
        "two files renamed to one name",
        {},
        {},
        {"same": "add/add"},
        one_runs="git mv text same",
        two_runs="git mv other same",
    ),
    Case("rename against delete", {}, {"text": None}, {"renamed": "rename/delete"}, one_runs="git mv text renamed"),
    Case(
        "folder renamed against a file added in it",
        {},
        {"folder/new": "new\n"},
        {"moved/new": "file location"},
        base={"folder/a": "a\n", "folder/b": "b\n"},
        one_runs="git mv folder moved",
    ),
    Case(
        "mode against content",
        {},
        {"text": TWO},
        merged={"text": TWO},
        one_runs="chmod +x text",
        modes={"text": "100755"},
    ),
    Case(
        "same mode twice",
        {},
        {},
        merged={"text": LINES},
        one_runs="chmod +x text",
        two_runs="chmod +x text",
        modes={"text": "100755"},
    ),
    Case("both add another content", {"new": "one\n"}, {"new": "two\n"}, {"new": "add/add"}),
    Case("both add the same content", {"new": "same\n"}, {"new": "same\n"}, merged={"new": "same\n"}),
    Case(
        "both add the same with different modes",
        {"new": "same\n"},
        {},
        {"new": "mode"},
        two_runs="printf 'same\\n' > new; chmod +x new",
    ),
    Case("file against folder", {"new": "one\n"}, {"new/file": "two\n"}, {"new": "file/directory"}),
    Case("folder against file", {"new/file": "one\n"}, {"new": "two\n"}, {"new": "file/directory"}),
    Case(
        "link against link",
        {},
        {},
        {"link": "symlink"},
        base={},
        one_runs="ln -sfn one link",
        two_runs="ln -sfn two link",
    ),
    Case("link against text", {"link": None}, {"link": "content\n"}, {"link": "modify/delete"}, two_runs="rm link"),
    Case(
        "submodule against submodule",
        {},
        {},
        {"module": "submodule"},
        one_runs=f"git update-index --cacheinfo 160000,{'1' * 40},module",
        two_runs=f"git update-index --cacheinfo 160000,{'2' * 40},module",
    ),
    Case(
        "strange names",
        {'new\nline "é"': "one\n", "*": "one\n"},
        {'new\nline "é"': "two\n", "plain": "two\n"},
        {'new\nline "é"': "add/add"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_subtasks(bench: Bench, case: Case) -> None:
    if "link" in case.name:
        bench.repository.git("-c", "alias.run=!ln -s base link", "run")
    if "submodule" in case.name:
        bench.repository.git("update-index", "--add", "--cacheinfo", f"160000,{'3' * 40},module")
        (bench.repository.path / "module").mkdir()
    bench.repository.commit(case.base or {})
    one = bench.attempt(1, case.one, shell=case.one_runs)
    two = bench.attempt(2, case.two, shell=case.two_runs)
    result = bench.merge(two, one)
    if case.conflicts is None:
        assert result.conflicts == ()
        assert [merged.subtask_id for merged in result.merged] == [1, 2]
        for path, content in (case.merged or {}).items():
            found = (
                bench.repository.content(result.head, path) + "\n"
                if path in bench.repository.files(result.head)
                else None
            )
            assert found == content
    else:
        (conflict,) = result.conflicts
        assert (conflict.subtask_id, conflict.other_subtask_ids) == (2, (1,))
        assert {file.path: file.kind for file in conflict.files} == case.conflicts
        assert conflict.describe().startswith("Subtask 2 conflicts with subtask 1 in ")
        assert "\n" not in conflict.describe()
        assert [merged.subtask_id for merged in result.merged] == [1]
        assert bench.repository.git("diff", "--name-only", one.commit, result.head) == ""
    for path, mode in (case.modes or {}).items():
        assert bench.repository.git("ls-tree", result.head, path).startswith(mode)


def test_a_conflict_leaves_its_subtask_out_and_the_next_goes_in(bench: Bench) -> None:
    one, two, three = bench.attempt(1, {"text": ONE}), bench.attempt(2, {"text": TWO}), bench.attempt(3, {"new": "3\n"})
    result = bench.merge(one, two, three)
    assert [merged.subtask_id for merged in result.merged] == [1, 3]
    assert bench.repository.content(result.head, "new") == "3"
    assert "TWO" not in bench.repository.content(result.head, "text")


def test_the_other_subtasks_are_those_that_changed_the_files(bench: Bench) -> None:
    attempts = [
        bench.attempt(1, {"text": edited((1, "ONE"))}),
        bench.attempt(2, {"unrelated": "2\n"}),
        bench.attempt(3, {"text": edited((9, "THREE")), "image": b"\0three"}),
        bench.attempt(4, {"text": edited((1, "FOUR"), (9, "FOUR")), "image": b"\0four"}),
    ]
    (conflict,) = bench.merge(*attempts).conflicts
    assert conflict.other_subtask_ids == (1, 3)
    assert conflict.describe() == "Subtask 4 conflicts with subtasks 1 and 3 in image (binary) and text (content)."


def test_subtasks_of_earlier_groups_are_named_too(bench: Bench) -> None:
    late = bench.attempt(3, {"text": TWO})
    head = bench.merge(bench.attempt(1, {"text": ONE})).head
    (conflict,) = bench.merge(late, bench.attempt(2, {"new": "2\n"}, base=head), head=head).conflicts
    assert (conflict.subtask_id, conflict.other_subtask_ids) == (3, (1,))


def test_a_merge_commit_tells_whose_work_it_brings(bench: Bench) -> None:
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    head = bench.merge(one).head
    assert bench.repository.git("log", "-1", "--format=%P|%an <%ae>|%aI|%cI|%B", head).split("|") == [
        f"{base} {one.commit}",
        "orchestrator <orchestrator@localhost>",
        "2026-03-01T12:01:00+00:00",
        "2026-03-01T12:01:00+00:00",
        "Merge subtask 1: Subtask 1\n\nSubtask: 1\nAttempt: refs/orchestrator/job/1/1",
    ]


def test_nothing_to_merge_makes_no_commit(bench: Bench) -> None:
    base = bench.repository.head
    idle = AttemptToMerge(1, "Idle", base, attempt_ref("job", 1, 1), ENDED)
    assert bench.merge(idle) == MergeResult(base, (MergedAttempt(1, None),), ())
    one = bench.attempt(2, {"text": ONE})
    head = bench.merge(one).head
    assert bench.merge(one, head=head) == MergeResult(head, (MergedAttempt(2, None),), ())


def test_the_merged_head_can_be_checked_out(bench: Bench) -> None:
    bench.repository.commit({".gitattributes": UNION})
    one, two = bench.attempt(1, {"notes.log": "start\n1\n"}), bench.attempt(2, {"notes.log": "start\n2\n"})
    head = bench.repository.head
    with bench.workspace(one, two) as workspace:
        for expected in ("start\n1\n", "start\n1\n2\n"):
            attempt = one if "2" not in expected else two
            head = merge_attempts(workspace, attempts=[attempt], head=head).head
            checkout = Repository(workspace.checkout(head))
            assert (checkout.path / "notes.log").read_text() == expected
            assert (checkout.head, checkout.git("status", "--porcelain")) == (head, "")
            checkout.write({"made-by-the-check": "x"})
    assert list(bench.root.glob("job-*")) == []


def test_a_shallow_repository(bench: Bench, tmp_path: Path) -> None:
    bench.repository.commit({"text": ONE})
    bench.repository.git("clone", "--quiet", "--depth=1", f"file://{bench.repository.path}", str(tmp_path / "shallow"))
    shallow = Bench(Repository(tmp_path / "shallow"), bench.cache, bench.root)
    result = shallow.merge(shallow.attempt(1, {"one": "1\n"}), shallow.attempt(2, {"two": "2\n"}))
    assert shallow.repository.files(result.head) >= {"one", "two"}
    assert shallow.branch_head() == result.head


def test_pushing_twice_is_fine(bench: Bench) -> None:
    repo = str(bench.repository.path)
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    with bench.workspace(one) as workspace:
        head = merge_attempts(workspace, attempts=[one], head=base).head
        for _ in range(2):
            begin_branch(workspace, repo, BRANCH, new=head, base_commit=base)
            assert bench.branch_head() == head
            push_branch(workspace, repo, BRANCH, new=head, expected=base)
            assert bench.branch_head() == head


def test_a_branch_that_stands_at_the_base_goes_on_from_there(bench: Bench) -> None:
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    with bench.workspace(one) as workspace:
        for new in (base, merge_attempts(workspace, attempts=[one], head=base).head):
            begin_branch(workspace, str(bench.repository.path), BRANCH, new=new, base_commit=base)
            assert bench.branch_head() == new


def test_losing_a_race_against_the_same_push_is_fine(bench: Bench) -> None:
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    hook = bench.repository.path / ".git" / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ngit update-ref "$1" "$3"\nexit 1\n')  # the other push wins, ours is refused
    hook.chmod(0o755)
    with bench.workspace(one) as workspace:
        head = merge_attempts(workspace, attempts=[one], head=base).head
        push_branch(workspace, str(bench.repository.path), BRANCH, new=head, expected=None)
    assert bench.branch_head() == head


@pytest.mark.parametrize("what", ["moved", "deleted", "made before"])
def test_a_branch_that_somebody_moved_is_not_overwritten(bench: Bench, what: str) -> None:
    repo = str(bench.repository.path)
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    theirs = bench.repository.commit({"theirs": "1\n"})
    with bench.workspace(one, head=base) as workspace:
        head = merge_attempts(workspace, attempts=[one], head=base).head
        first = what == "made before"
        move = partial(begin_branch, base_commit=base) if first else partial(push_branch, expected=base)
        if what != "deleted":
            bench.repository.git("update-ref", f"refs/heads/{BRANCH}", theirs)
        with pytest.raises(RepositoryError, match=f"Somebody has moved the branch {BRANCH}") as caught:
            move(workspace, repo, BRANCH, new=head)
        assert bench.branch_head() == (None if what == "deleted" else theirs)
    assert caught.value.recovery
    assert "\n" not in str(caught.value)


def test_a_branch_that_is_checked_out_is_told(bench: Bench) -> None:
    one = bench.attempt(1, {"text": ONE})
    base = bench.repository.head
    bench.repository.git("checkout", "--quiet", "-b", BRANCH)
    with bench.workspace(one) as workspace:
        head = merge_attempts(workspace, attempts=[one], head=base).head
        with pytest.raises(GitError, match=r"checked.out.*Switch the checkout"):
            push_branch(workspace, str(bench.repository.path), BRANCH, new=head, expected=base)
    assert (bench.repository.path / "text").read_text() == LINES


def test_a_branch_in_the_way_is_told(bench: Bench) -> None:
    bench.repository.git("branch", "orchestrator")
    base = bench.repository.head
    with bench.workspace() as workspace, pytest.raises(GitError, match="can't be pushed"):
        begin_branch(workspace, str(bench.repository.path), BRANCH, new=base, base_commit=base)


def test_many_attempts_all_arrive(bench: Bench) -> None:
    attempts = [bench.attempt(number, {f"file-{number}": f"{number}\n"}) for number in range(1, 21)]
    result = bench.merge(*reversed(attempts))
    assert [merged.subtask_id for merged in result.merged] == list(range(1, 21))
    assert bench.repository.files(result.head) == {*BASE, *(f"file-{number}" for number in range(1, 21))}


@pytest.mark.parametrize(
    ("fifth", "merges"),
    [
        ({"new-5": "1\n"}, []),
        ({"new-1": "5\n"}, ["diff-tree", "merge-tree", "merge-base", "log", *["merge-tree"] * 5]),
        ({"other": None}, ["diff-tree", *["merge-tree"] * 6]),
    ],
)
def test_branches_that_are_apart_cost_one_program_and_others_one_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fifth: Files, merges: list[str]
) -> None:
    """Ten branches are merged while the next group waits; what can be asked for all of them is asked once."""
    files = {number: fifth if number == 5 else {f"new-{number}": "1\n"} for number in range(1, 11)}
    attempts = [bench.attempt(number, work) for number, work in files.items()]
    ran: list[str] = []

    def count(*args: Any, **kwargs: Any) -> GitResult:
        ran.append(str(args[0]))
        return run_git(*args, **kwargs)

    with bench.workspace(*attempts) as workspace:
        monkeypatch.setattr(branches, "run_git", count)
        monkeypatch.setattr(apart, "run_git", count)
        result = merge_attempts(workspace, attempts=attempts, head=bench.repository.head)
    conflicts = [conflict.subtask_id for conflict in result.conflicts]
    assert conflicts == ([5] if "log" in merges else [])
    assert [merged.subtask_id for merged in result.merged] == [n for n in range(1, 11) if n not in conflicts]
    assert ran == ["rev-list", "diff-tree", "fast-import", *merges]


def test_strange_names_and_modes_come_out_as_by_gits_own_merge(bench: Bench) -> None:
    strange = 'a "quoted"\\ é \t\n name'
    bench.repository.commit({"deep/folder/file": "1\n"})
    attempts = [
        bench.attempt(1, {strange: "1\n", f"{strange} too/in it": "1\n"}),
        bench.attempt(2, {"deep/folder/file": "2\n", "deep/other": b"\0\xff"}),
        bench.attempt(3, {".gitattributes": UNION}, shell="chmod +x text"),
        bench.attempt(4, {}, shell="ln -s text link"),
        bench.attempt(5, {"five": "5\n"}, shell="git commit --quiet --allow-empty -m first"),
        bench.attempt(6, {}),
    ]
    with bench.workspace(*attempts) as workspace, pytest.MonkeyPatch.context() as patch:
        patch.delattr(MergeWorkspace, "merge")
        head = merge_attempts(workspace, attempts=attempts, head=bench.repository.head).head
    assert bench.merge(*attempts).head == head
    assert bench.repository.git("fsck", "--strict") == ""


def test_an_attempt_from_an_older_head_is_no_stranger(bench: Bench) -> None:
    late = bench.attempt(3, {"late": "3\n"})
    head = bench.merge(bench.attempt(1, {"text": ONE}), bench.attempt(2, {"two": "2\n"})).head
    result = bench.merge(late, bench.attempt(4, {"four": "4\n"}, base=head), head=head)
    assert bench.repository.files(result.head) == {*BASE, "two", "late", "four"}
    assert bench.repository.content(result.head, "text") + "\n" == ONE


def test_work_on_top_of_anothers_is_no_stranger(bench: Bench) -> None:
    first = bench.attempt(1, {"one": "1\n"})
    second = bench.attempt(2, {"two": "2\n"}, base=first.commit)
    result = bench.merge(first, second, bench.attempt(3, {"three": "3\n"}))
    assert bench.repository.files(result.head) == {*BASE, "one", "two", "three"}


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_this_machine_knows_what_was_merged_without_a_fetch(bench: Bench, tmp_path: Path, form: str) -> None:
    base, repo = bench.repository.head, form.format(bench.repository.path)
    bench.cache.path_with(repo, [base])
    attempts = [bench.attempt(number, {f"new-{number}": "1\n"}) for number in (1, 2)]
    with bench.workspace(*attempts, form=form) as workspace:
        head = merge_attempts(workspace, attempts=attempts, head=base).head
        with workspace.lending(head):
            pass
    bench.repository.path.rename(tmp_path / "away")
    cache = Repository(RepositoryCache(bench.cache.root).path_with(repo, [head]))
    assert cache.files(head) == {*BASE, "new-1", "new-2"}
    cache.git("fsck", "--strict", head)
    assert not list(cache.path.glob("objects/??/*")), "it came as one whole pack"


def test_a_repository_on_this_machine_is_not_fetched_from(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench.attempt(1, {"new-1": "1\n"})
    ran: list[str] = []

    def count(*args: Any, **kwargs: Any) -> GitResult:
        ran.append(str(args[0]))
        return run_git(*args, **kwargs)

    with bench.workspace(form="{}"):  # makes the cache
        monkeypatch.setattr(repository_cache, "run_git", count)
    with bench.workspace(one, form="{}") as workspace:
        head = merge_attempts(workspace, attempts=[one], head=bench.repository.head).head
        with workspace.lending(head):
            push_branch(workspace, str(bench.repository.path), BRANCH, new=head, expected=None)
    two = bench.attempt(2, {"new-2": "2\n"}, base=head)
    with bench.workspace(two, head=head, form="{}") as workspace:
        merged = merge_attempts(workspace, attempts=[two], head=head).head
        assert Repository(workspace.path).files(merged) == {*BASE, "new-1", "new-2"}
    assert ran == ["cat-file", "pack-objects", "cat-file"]


@pytest.mark.parametrize("kind", ["shallow", "borrowing", "partial", "linked worktree", "away"])
def test_a_repository_that_has_not_all_its_objects_lends_none(bench: Bench, tmp_path: Path, kind: str) -> None:
    base, place = bench.repository.head, tmp_path / "place"
    bench.repository.git("config", "uploadpack.allowFilter", "true")
    clone = {
        "shallow": ("--no-local", "--depth=1"),
        "borrowing": ("--shared",),
        "partial": ("--no-local", "--filter=blob:none"),
        "away": (),
    }
    if kind == "linked worktree":
        bench.repository.git("worktree", "add", "--quiet", "--detach", str(place))
    else:
        bench.repository.git("clone", "--quiet", *clone[kind], str(bench.repository.path), str(place))
    there = Bench(Repository(place), bench.cache, bench.root)
    commit = there.repository.commit({"new": "1\n"})
    there.cache.path_with(str(place), [base, commit])
    if kind == "away":
        place.rename(tmp_path / "away")
    lenders = there.cache.lenders_of(str(place), base, [commit])
    assert lenders.objects == (lenders.cache / "objects",)
    assert lenders.cached == (base, commit)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_commit_of_ours_is_what_git_would_write(tmp_path: Path, object_format: str) -> None:
    repository = Repository(tmp_path)
    repository.git("init", "--quiet", f"--object-format={object_format}")
    first = repository.commit({"a": "1\n"})
    second = repository.commit({"a": "2\n"})
    tree, date, message = repository.git("rev-parse", "HEAD^{tree}"), "@1700000000 +0000", "Größe 数\n\nsubtask 1\n"
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    by_git = run_git(
        *("commit-tree", tree, "-p", first, "-p", second), cwd=tmp_path, input=message.encode(), env=IDENTITY | dates
    ).text
    name = repository.path / ".git" / "objects" / by_git[:2] / by_git[2:]
    name.unlink()
    ours = write_commit(name.parent.parent, tree=tree, parents=[first, second], message=message, seconds=1700000000)
    assert ours == by_git
    assert repository.git("fsck", "--strict", ours) == ""
    assert repository.git("log", "-1", "--format=%B", ours) == message.rstrip("\n")


def test_one_attempt_on_top_of_another_brings_both(bench: Bench) -> None:
    """The later commit has the earlier one behind it, and is merged first: nothing is left of the other to merge."""
    first = bench.attempt(2, {"first": "1\n"})
    second = bench.attempt(1, {"second": "2\n"}, base=first.commit)
    result = bench.merge(first, second)
    assert [(merged.subtask_id, merged.commit is None) for merged in result.merged] == [(1, False), (2, True)]
