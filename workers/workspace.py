"""A workspace: the folder in which one attempt works, from the group's base commit to the commit that is pushed.

    <root>/<job>-<subtask>-<attempt>-<random>/
        checkout/      the agent's: a repository of its own that borrows the cache's objects
        private/       the worker's: prompt file, the agent's state folder
        record.git/    ours: sees the checkout as its work tree, and the agent never sees it
        outgoing.git/  only where agents have an account of their own, to which the other three then belong: what is
                       pushed and fetched passes through it, for no program of ours runs in theirs

Whatever an agent does to its repository (detached HEAD, half a rebase, a stale lock, no `.git` at all), the result is read
from the files through `record.git`, whose index was made before the agent came.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from orchestrator.accounts import Account, acting_as
from orchestrator.commit_object import write_commit
from orchestrator.git import NETWORK_TIMEOUT_SECONDS, GitResult, run_git
from orchestrator.push import Refusal, push
from orchestrator.state.checkpoints import SavedWork
from workers.checkout_files import is_linked_worktree, is_own_file, looks_the_same, read_plain_file
from workers.handing_over import Side, hand_over

log = logging.getLogger(__name__)

GITLINK: Final = b"160000"


class Change(NamedTuple):
    """A path that differs from the base commit; a mode is 000000 where there is no file."""

    path: bytes
    old_mode: bytes
    new_mode: bytes

    @property
    def is_new_gitlink(self) -> bool:
        return self.new_mode == GITLINK != self.old_mode


@dataclass(frozen=True)
class Workspace:
    """One attempt's folder. `repo`, `base_commit` and `cache` are None where the job has no repository."""

    folder: Path
    repo: str | None = None
    base_commit: str | None = None
    cache: Path | None = None
    account: Account | None = None
    """The agent's, if it is not ours: checkout, private folder and record belong to it."""
    has_earlier_work: bool = False
    _index_name: str = "index"
    _known_changes: dict[str, list[Change]] = field(default_factory=dict, compare=False, repr=False)
    """Commit or tree → how it differs from the base commit."""

    @property
    def path(self) -> Path:
        """The agent's working directory."""
        return self.folder / "checkout"

    @property
    def private_dir(self) -> Path:
        """A folder beside the checkout that is never committed."""
        return self.folder / "private"

    def changed_files(self, commit: str | None = None) -> list[str]:
        """Paths that differ from the base commit, whoever committed them or nobody; empty without a repository.

        `commit` is what `commit_all` returned, where the files have not changed since: the checkout is not read again.
        Bytes that are no UTF-8 show as `\\xff`.
        """
        if self.base_commit is None or commit == self.base_commit:
            return []
        tree = commit or self._tree_of_checkout(self._agents_commit())
        return [change.path.decode("utf-8", "backslashreplace") for change in self._changes(tree)]

    def commit_all(self, *, title: str, subtask_id: int, job_id: str) -> str:
        """Commit what is uncommitted, and return the attempt's commit: a descendant of the base that has what the checkout has.

        Ignored files stay out, unless the agent itself has added them. The base commit comes back when nothing changed.
        The agent's own commits stay as they are; where they do not descend from the base, only their content counts.
        """
        if self.base_commit is None:
            raise ValueError("a workspace without a repository has nothing to commit")
        commit = self._commit_all(self.base_commit, title=title, subtask_id=subtask_id, job_id=job_id)
        if commit != self.base_commit and self.outgoing != self.record:
            theirs, ours = Side(self.record, self.account), Side(self.outgoing, None)
            hand_over(commit, beyond=self.base_commit, source=theirs, target=ours)
        return commit

    def _commit_all(self, base_commit: str, *, title: str, subtask_id: int, job_id: str) -> str:
        parent = self._agents_commit()
        tree = self._tree_of_checkout(parent)
        if not self._changes(tree):
            return base_commit
        if parent != base_commit and self._git("rev-parse", f"{parent}^{{tree}}").text == tree:
            return parent
        message = f"{' '.join(title.split())}\n\nsubtask {subtask_id} of job {job_id}\n"
        objects, seconds = self.record / "objects", int(time.time())
        with acting_as(self.account):
            commit = write_commit(objects, tree=tree, parents=[parent], message=message, seconds=seconds)
        self._known_changes[commit] = self._changes(tree)
        return commit

    def saved(self, commit: str, ref: str) -> SavedWork | None:
        """The commit that `commit_all` returned, as a later attempt can go on with it; None where nothing has changed."""
        return None if commit == self.base_commit else SavedWork(commit, self._agents_commit(), ref)

    def beside(self, name: str) -> Workspace:
        """The same workspace seen through an index of its own, so that it can be committed while the agent works."""
        with acting_as(self.account):
            shutil.copy2(self._index, self.record / name)
        return replace(self, _index_name=name, _known_changes={})

    def push(
        self,
        commit: str,
        ref: str,
        *,
        overwrite: bool = False,
        timeout_seconds: float = NETWORK_TIMEOUT_SECONDS,
    ) -> Refusal | None:
        """Push the commit that `commit_all` returned to `ref` on the job's repository; once more is fine.

        Returns why the repository refuses, also when `ref` holds anything else, unless that is to be overwritten.
        Raises `GitError` when it is away, or not done in time.
        """
        if self.repo is None:
            raise ValueError("a workspace without a repository has nothing to push")
        return push(
            self.repo,
            commit,
            ref,
            expected=None,
            overwrite=overwrite,
            cwd=self.outgoing,
            timeout_seconds=timeout_seconds,
        )

    def keep(self, commit: str, ref: str) -> Path:
        """Keep that commit as `ref` in this machine's cache of the repository, whose path is returned."""
        if self.cache is None:
            raise ValueError("a workspace without a repository has nothing to keep")
        run_git("push", "--quiet", "--force", "--", str(self.cache), f"{commit}:{ref}", cwd=self.outgoing)
        return self.cache

    @property
    def record(self) -> Path:
        """Our repository of the checkout."""
        return self.folder / "record.git"

    @property
    def outgoing(self) -> Path:
        """The repository from which is pushed: it has the commit that `commit_all` returned."""
        return self.record if self.account is None else self.folder / "outgoing.git"

    @property
    def _index(self) -> Path:
        return self.record / self._index_name

    def _git(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> GitResult:
        place = {"GIT_DIR": str(self.record), "GIT_WORK_TREE": str(self.path), "GIT_INDEX_FILE": str(self._index)}
        place |= dict(env or {})
        return run_git(*args, cwd=self.path, input=stdin, env=place, check=check, account=self.account)

    def _ask_agents_repository(self, *args: str) -> GitResult:
        """It may be in any state, or gone: an answer is welcome, none is no error."""
        place = {"GIT_DIR": str(self.path / ".git"), "GIT_WORK_TREE": str(self.path)}
        return run_git(*args, cwd=self.path, env=place, check=False, account=self.account)

    def _agents_commit(self) -> str:
        """The agent's HEAD where it descends from the base commit, else the base commit."""
        assert self.base_commit is not None
        if self._agents_branch_stands_at(self.base_commit):
            return self.base_commit
        head = self._ask_agents_repository("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
        if head.exit_code != 0 or head.text == self.base_commit:
            return self.base_commit
        ancestry = ("merge-base", "--is-ancestor", self.base_commit, head.text)
        descends = run_git(*ancestry, cwd=self.record, check=False, account=self.account).exit_code == 0
        return head.text if descends else self.base_commit

    def _agents_branch_stands_at(self, commit: str) -> bool:
        """What git would say as well, where nothing is unusual; without asking it."""
        with acting_as(self.account):
            kind, _, ref = read_plain_file(self.path / ".git" / "HEAD").strip().partition(b" ")
            if kind != b"ref:" or not ref.startswith(b"refs/heads/"):
                return False
            return read_plain_file(self.path / ".git" / os.fsdecode(ref)).strip() == commit.encode()

    def _changes(self, tree: str) -> list[Change]:
        assert self.base_commit is not None
        if tree not in self._known_changes:
            listing = self._git("diff-tree", "-r", "-z", "--raw", "--no-renames", self.base_commit, tree).stdout
            raw = iter(_split(listing))
            pairs = zip(raw, raw, strict=True)
            self._known_changes[tree] = [_change(modes, path) for modes, path in pairs]
        return self._known_changes[tree]

    def _tree_of_checkout(self, head: str) -> str:
        """Write the checkout's files as a tree. The index keeps what was known of unchanged files, so only changes are read."""
        exclude = self.record / "info" / "exclude"
        with acting_as(self.account):
            exclude.parent.mkdir(exist_ok=True)
            exclude.write_bytes(read_plain_file(self.path / ".git" / "info" / "exclude"))
        return self._tree_of_plain_checkout(head) or self._tree_of_any_checkout(head)

    def _tree_of_plain_checkout(self, head: str) -> str | None:
        """The tree of a checkout in which the agent has used no git and made no repository, as most do; else None, and
        the index is as it was."""
        index, agents_index = self._index, self.path / ".git" / "index"
        if head != self.base_commit or self._submodules() or not looks_the_same(index, agents_index):
            return None
        before = self.record / f"{self._index_name}-before"
        with acting_as(self.account):
            shutil.copy2(index, before)
        added = self._git("add", "--all", env={"GIT_LITERAL_PATHSPECS": "0"}, check=False)
        if added.exit_code == 0:  # else there may be a repository without a commit in it
            tree = self._git("write-tree").text
            if not any(change.is_new_gitlink for change in self._changes(tree)):
                return tree
        with acting_as(self.account):
            before.replace(index)
        return None

    def _tree_of_any_checkout(self, head: str) -> str:
        submodules = self._submodules()
        if head != self.base_commit:
            self._git("read-tree", "-m", "-i", head)
            # Nested repositories, committed as pointers; what is a submodule is then added as one again.
            embedded = b"".join(change.path + b"\0" for change in self._changes(head) if change.is_new_gitlink)
            self._git("update-index", "-z", "--force-remove", "--stdin", stdin=embedded)
        untracked = _split(self._git("ls-files", "-z", "--others", "--exclude-standard").stdout)
        nested = [path for path in untracked if path.endswith(b"/") and path.rstrip(b"/") not in submodules]
        pathspecs = b".\0" + b"".join(b":(exclude,literal)" + path.rstrip(b"/") + b"\0" for path in nested)
        self._git(
            *("add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"),
            stdin=pathspecs,
            env={"GIT_LITERAL_PATHSPECS": "0"},
        )
        more = [*self._added_though_ignored(), *self._files_of_nested(nested)]
        if more:
            paths = b"".join(path + b"\0" for path in more)
            self._git("update-index", "-z", "--add", "--replace", "--stdin", stdin=paths)
        if hidden := self._hidden_by_sparse_checkout():
            self._git("update-index", "-z", "--index-info", stdin=hidden)
        return self._git("write-tree").text

    def _submodules(self) -> set[bytes]:
        if not (self.path / ".gitmodules").is_file():
            return set()
        asked = ("config", "-z", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
        listing = run_git(*asked, cwd=self.path, check=False, account=self.account).stdout
        return {entry.partition(b"\n")[2] for entry in _split(listing)}

    def _files_of_nested(self, folders: Iterable[bytes]) -> Iterator[bytes]:
        """The files of repositories inside the checkout: kept as plain files, for their history has no other home.

        A linked worktree is another branch of the agent's repository, not content of this one.
        """
        for folder in folders:
            place = Path(os.fsdecode(os.fsencode(self.path) + b"/" + folder))
            if is_linked_worktree(place):
                log.warning(
                    "The agent left a linked worktree in its checkout; its files are not taken.",
                    extra={"event": "workspace.worktree_ignored", "folder": str(place)},
                )
                continue
            look = {
                "GIT_DIR": str(self.record),
                "GIT_WORK_TREE": str(place),
                "GIT_INDEX_FILE": str(self.record / "none"),
            }
            asked = ("ls-files", "-z", "--others", "--exclude-standard")
            listing = run_git(*asked, cwd=place, env=look, account=self.account).stdout
            inside = [folder + name for name in _split(listing)]
            yield from (path for path in inside if not path.endswith(b"/"))
            yield from self._files_of_nested(path for path in inside if path.endswith(b"/"))

    def _added_though_ignored(self) -> list[bytes]:
        """Files that the agent has added by force: ignored, yet in its index."""
        listing = self._ask_agents_repository("ls-files", "-z", "--cached", "--ignored", "--exclude-standard").stdout
        return [path for path in _split(listing) if is_own_file(os.fsencode(self.path), path)]

    def _hidden_by_sparse_checkout(self) -> bytes:
        """Index entries of files that the agent's sparse checkout has put away: absent, and not deleted."""
        listing = self._ask_agents_repository("ls-files", "-z", "-t", "--stage").stdout
        root = os.fsencode(self.path) + b"/"
        hidden = (entry[2:] for entry in _split(listing) if entry.startswith(b"S "))
        return b"".join(entry + b"\0" for entry in hidden if not os.path.lexists(root + entry.partition(b"\t")[2]))


def _change(modes: bytes, path: bytes) -> Change:
    old_mode, new_mode = modes.lstrip(b":").split()[:2]
    return Change(path, old_mode, new_mode)


def _split(listing: bytes) -> list[bytes]:
    return [entry for entry in listing.split(b"\0") if entry]
