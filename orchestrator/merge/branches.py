"""Merging attempts onto a job's integration branch.

The same head, attempts and times always give the same commits, so a dispatcher that died anywhere is replaced by one that
does the same again: the merge is a function, the push a compare-and-set.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account
from orchestrator.borrowing import borrow
from orchestrator.claimed_folders import claimed_folder, remove_tree
from orchestrator.commit_object import write_commit
from orchestrator.errors import GitError, RepositoryError
from orchestrator.fault_points import fault_point
from orchestrator.git import empty_tree, last_line, run_git
from orchestrator.merge.apart import CommitToMake, FileChange, changes_from, how_many_are_apart, make_commits
from orchestrator.merge.conflicts import Conflict, MergeReport, read_merge_tree
from orchestrator.push import Refusal, push
from orchestrator.redaction import redact_url
from orchestrator.repository_cache import Lenders, RepositoryCache

SUBTASK_TRAILER: Final = "Subtask"
"""The line of a merge commit's message by which a later conflict finds out whose change it meets."""

ATTRIBUTES: Final = b".gitattributes"
ATTRIBUTES_ONLY: Final = ("--", f":(glob)**/{ATTRIBUTES.decode()}")
PATHS_A_COMMAND: Final = 500


@dataclass(frozen=True)
class AttemptToMerge:
    """A completed attempt: its commit, the ref that holds it on the remote, and when its outcome was recorded."""

    subtask_id: int
    title: str
    commit: str
    ref: str
    finished_at: datetime


@dataclass(frozen=True)
class MergedAttempt:
    """`commit` is the merge commit; None where the head already had everything."""

    subtask_id: int
    commit: str | None


@dataclass(frozen=True)
class MergeResult:
    """`head` has what is in `merged`, and nothing of what is in `conflicts`. Both are in subtask order."""

    head: str
    merged: tuple[MergedAttempt, ...]
    conflicts: tuple[Conflict, ...]


class MergeWorkspace:
    """A repository that borrows its objects and whose only files are the head's `.gitattributes`.

    `git merge-tree` takes attributes from the work tree alone: without these files a `merge=union` file conflicts.
    """

    def __init__(self, folder: Path, cache: RepositoryCache, lenders: Lenders, head: str) -> None:
        self._folder = folder
        self._cache = cache
        self._lenders = lenders
        self.path = folder / "merge"
        borrow(self.path, objects=lenders.objects, commit=head)
        self._shown = empty_tree(head)
        self._attributes_stay = False
        self._changes: dict[str, list[FileChange]] = {}
        """Of each expected commit, against the head at that time."""
        self._parents: dict[str, list[str]] = {}
        """Commits that are to come and the head does not have → their parents; the head's own are not among them."""

    @classmethod
    @contextmanager
    def open(
        cls,
        root: Path,
        cache: RepositoryCache,
        *,
        repo: str,
        job_id: str,
        head: str,
        attempts: Sequence[AttemptToMerge],
    ) -> Iterator[MergeWorkspace]:
        """A workspace under `root` with the head and the attempts' commits, removed at the end.

        Raises `GitError` or `RepositoryError` when the repository can't be read or lacks a commit.
        """
        lenders = cache.lenders_of(repo, head, [attempt.commit for attempt in attempts])
        with claimed_folder(root, f"{job_id}-merge") as folder:
            yield cls(folder, cache, lenders, head)

    def checkout(self, commit: str, account: Account | None = None) -> Path:
        """The files of a commit in a repository of their own, for the group's check; one at a time. `account` is whose it is
        to be; None: ours. Another one's git finds the objects in the cache, to which they were lent before."""
        folder = self._folder / "check"
        remove_tree(folder)
        if account is not None:
            self._folder.chmod(0o711)
        borrow(folder, objects=[self.path / ".git" / "objects"], commit=commit, account=account)
        run_git("checkout", "--quiet", "--detach", commit, cwd=folder, account=account)
        return folder

    def expect(self, head: str, commits: Sequence[str]) -> None:
        """Look once at everything that is to be merged onto `head`, instead of each time before a merge."""
        wanted = "".join(f"{commit}\n" for commit in [f"^{head}", *commits])
        listing = run_git("rev-list", "--parents", "--stdin", cwd=self.path, input=wanted.encode()).text
        self._parents = {commit: parents for commit, *parents in map(str.split, listing.splitlines())}
        self._changes = changes_from(head, commits, self.path)
        self._attributes_stay = False

    def contains(self, commit: str) -> bool:
        """Whether an expected commit is part of the head's history."""
        return commit not in self._parents

    def note_merged(self, commit: str) -> None:
        """The head has this commit now, and whatever stands behind it."""
        open_ones = [commit]
        while open_ones:
            open_ones.extend(self._parents.pop(open_ones.pop(), ()))

    def merge_apart(self, head: str, attempts: Sequence[AttemptToMerge]) -> list[str]:
        """Merge as many of the expected attempts, from the first one, as have nothing to do with each other onto the head
        for which they are expected, and return the merge commits."""
        commits = [attempt.commit for attempt in attempts]
        number = how_many_are_apart(head, commits, self._changes, self._parents)
        if number < 2:
            return []
        wanted = [
            CommitToMake(attempt.commit, self._changes[attempt.commit], _message(attempt), _seconds(attempt))
            for attempt in attempts[:number]
        ]
        return make_commits(head, wanted, self.path) or []

    def merge(self, head: str, commit: str) -> MergeReport:
        """Merge an expected commit in memory, by the head's attributes. Nothing is committed."""
        if not self._attributes_stay:
            self._show_attributes(head)
            # Where both sides have the same attributes files, so has their merge.
            changes = (change for changes in self._changes.values() for change in changes)
            self._attributes_stay = not any(change.path.rpartition(b"/")[2] == ATTRIBUTES for change in changes)
        result = run_git(*("merge-tree", "--write-tree", "-z", "--messages", head, commit), cwd=self.path, check=False)
        if result.exit_code not in {0, 1}:
            raise GitError(
                f"Commit {commit} can't be merged: {last_line(result.stderr)}.",
                context={"head": head, "commit": commit, "stderr": result.stderr},
            )
        report = read_merge_tree(result.stdout, (head, commit))
        if result.exit_code == 0:
            return MergeReport(report.tree)
        if not report.files:
            raise GitError(
                f"Commit {commit} conflicts, and git does not say where.", context={"head": head, "commit": commit}
            )
        return report

    def subtasks_behind(self, head: str, commit: str, paths: Sequence[bytes]) -> tuple[int, ...]:
        """The subtasks merged since `commit` forked off that changed one of the paths; all of them if none did.

        None did where a whole folder was renamed and the path in question is new.
        """
        fork = run_git("merge-base", head, commit, cwd=self.path).text
        log = (
            "log",
            "--first-parent",
            f"--format=%(trailers:key={SUBTASK_TRAILER},valueonly)",
            f"{fork}..{head}",
            "--",
        )
        found: set[str] = set()
        for start in range(0, len(paths), PATHS_A_COMMAND):
            some = [os.fsdecode(path) for path in paths[start : start + PATHS_A_COMMAND]]
            found.update(run_git(*log, *some, cwd=self.path).text.split())
        if not found:
            found.update(run_git(*log, cwd=self.path).text.split())
        return tuple(sorted(int(subtask_id) for subtask_id in found))

    def commit_merge(self, tree: str, head: str, attempt: AttemptToMerge) -> str:
        """Commit a merged tree. Everything in the commit comes from the arguments, the date too."""
        return write_commit(
            self.path / ".git" / "objects",
            tree=tree,
            parents=[head, attempt.commit],
            message=_message(attempt),
            seconds=_seconds(attempt),
        )

    @contextmanager
    def lending(self, new: str) -> Iterator[None]:
        """Give this machine's cache what was merged, beside the block, for the next group begins there. It is harmless
        where nothing comes of the merge: no ref names it."""
        objects = self.path / ".git" / "objects"
        lending = threading.Thread(target=self._cache.lend, args=(self._lenders, new, objects), name="lending")
        lending.start()
        try:
            yield
        finally:
            lending.join()

    def _show_attributes(self, head: str) -> None:
        """Make the attributes files in the work tree those of `head`; what is the same as before is not read again."""
        changes = ("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", self._shown, head, *ATTRIBUTES_ONLY)
        listing = run_git(*changes, cwd=self.path, env={"GIT_LITERAL_PATHSPECS": "0"}).stdout
        fields = iter(listing.split(b"\0")[:-1])
        for change, path in zip(fields, fields, strict=True):
            folders, _, name = path.rpartition(b"/")
            if name != ATTRIBUTES or b".." in folders.split(b"/"):
                continue
            file = self.path / os.fsdecode(path)
            mode, object_id = change.decode().split()[1], change.decode().split()[3]
            file.unlink(missing_ok=True)
            if mode.startswith("100"):  # git follows no link to find attributes
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(run_git("cat-file", "blob", object_id, cwd=self.path).stdout)
        self._shown = head


def merge_attempts(workspace: MergeWorkspace, *, attempts: Sequence[AttemptToMerge], head: str) -> MergeResult:
    """Merge the attempts onto `head`, in subtask order. A conflict leaves its attempt out and goes on with the next.

    Raises `GitError` when git can't do it at all.
    """
    merged: list[MergedAttempt] = []
    conflicts: list[Conflict] = []
    if attempts:
        workspace.expect(head, [attempt.commit for attempt in attempts])
    in_order = sorted(attempts, key=lambda attempt: attempt.subtask_id)
    new = [attempt for attempt in in_order if not workspace.contains(attempt.commit)]
    made = dict(zip((attempt.subtask_id for attempt in new), workspace.merge_apart(head, new), strict=False))
    for attempt in in_order:
        if workspace.contains(attempt.commit):
            merged.append(MergedAttempt(attempt.subtask_id, None))
            continue
        merge_commit = made.get(attempt.subtask_id)
        if merge_commit is None:
            report = workspace.merge(head, attempt.commit)
            if report.files:
                others = workspace.subtasks_behind(head, attempt.commit, report.paths)
                conflicts.append(Conflict(attempt.subtask_id, others, report.files))
                continue
            merge_commit = workspace.commit_merge(report.tree, head, attempt)
        head = merge_commit
        workspace.note_merged(attempt.commit)
        merged.append(MergedAttempt(attempt.subtask_id, head))
        fault_point("between_merged_branches")
    return MergeResult(head, tuple(merged), tuple(conflicts))


def _message(attempt: AttemptToMerge) -> str:
    title = " ".join(attempt.title.split())
    return (
        f"Merge subtask {attempt.subtask_id}: {title}\n\n"
        f"{SUBTASK_TRAILER}: {attempt.subtask_id}\nAttempt: {attempt.ref}\n"
    )


def _seconds(attempt: AttemptToMerge) -> int:
    return int(attempt.finished_at.timestamp())


def begin_branch(workspace: MergeWorkspace, repo: str, branch: str, *, new: str, base_commit: str) -> None:
    """Create the integration branch at `new`, or move it there from the job's base commit, where an earlier merge has
    brought nothing. Raises what `push_branch` raises."""
    refusal = push(repo, new, f"refs/heads/{branch}", expected=None, cwd=workspace.path)
    if refusal is None:
        return
    if _head_of(repo, branch) is None:
        raise _refused(repo, branch, refusal)
    push_branch(workspace, repo, branch, new=new, expected=base_commit)


def push_branch(workspace: MergeWorkspace, repo: str, branch: str, *, new: str, expected: str | None) -> None:
    """Move the branch from `expected` (None: it must not exist) to `new`; it is no error if it is there already.

    Raises `RepositoryError` when somebody else has moved it, `GitError` when git refuses for another reason.
    """
    refusal = push(repo, new, f"refs/heads/{branch}", expected=expected, cwd=workspace.path)
    if refusal is None:
        return
    found = _head_of(repo, branch)
    if found == new:
        return
    if found == expected:
        raise _refused(repo, branch, refusal)
    shown = redact_url(repo)
    back = f"git push --force {shlex.quote(shown)} {expected or ''}:refs/heads/{branch}"
    raise RepositoryError(
        f"Somebody has moved the branch {branch} of {shown}: it should be at {expected or 'no commit'}"
        f" and is {f'at {found}' if found else 'gone'}.",
        context={"repo": shown, "branch": branch, "expected": expected, "found": found, "new": new},
        recovery=f"Save what was pushed there under another name, put it back with `{back}`, then retry the job.",
    )


def _head_of(repo: str, branch: str) -> str | None:
    ref = f"refs/heads/{branch}"
    listing = run_git("ls-remote", "--", repo, ref, cwd=None, user_config=True, timeout_seconds=60.0).text
    return next((line.split("\t")[0] for line in listing.splitlines() if line.endswith(f"\t{ref}")), None)


def _refused(repo: str, branch: str, refusal: Refusal) -> GitError:
    in_use = "checked out" in str(refusal) or "checked-out" in str(refusal)
    return GitError(
        f"The branch {branch} can't be pushed to {redact_url(repo)}: {str(refusal).rstrip('.')}.",
        context={"repo": redact_url(repo), "branch": branch},
        recovery="Switch the checkout there to another branch, then retry the job." if in_use else "",
    )
