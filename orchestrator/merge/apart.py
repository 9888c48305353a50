"""Merging attempts whose changes have nothing to do with each other: one program for all, instead of one a branch.

Where no attempt deletes, renames or turns anything into something else, and no path of one is a path of another or lies
under it, git's merge takes each file from the one side that changed it: no content is merged, no attribute is asked. So
the same trees come out of putting the files in, one attempt after the other, and the same commits. Everything else is
left to `git merge-tree`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.commit_object import SIGNATURE
from orchestrator.git import run_git

PLAIN_MODES: Final = {"100644", "100755", "120000"}


@dataclass(frozen=True)
class FileChange:
    """How a commit differs from the head in one path; `status` is git's letter."""

    path: bytes
    status: str
    mode: str
    object_id: str

    @property
    def is_plain(self) -> bool:
        return self.status in {"A", "M"} and self.mode in PLAIN_MODES


@dataclass(frozen=True)
class CommitToMake:
    """A merge commit to be: `commit` with these changes on top of the one before."""

    commit: str
    changes: Sequence[FileChange]
    message: str
    seconds: int


def changes_from(head: str, commits: Sequence[str], cwd: Path) -> dict[str, list[FileChange]]:
    """How each commit differs from `head`."""
    pairs = "".join(f"{commit} {head}\n" for commit in commits)
    differ = ("diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames", "--no-abbrev")
    found: dict[str, list[FileChange]] = {commit: [] for commit in commits}
    fields = iter(run_git(*differ, cwd=cwd, input=pairs.encode()).stdout.split(b"\0")[:-1])
    commit = ""
    for field in fields:
        if field.startswith(b":"):
            _, mode, _, object_id, status = field.decode().split()
            found[commit].append(FileChange(next(fields), status, mode, object_id))
        else:
            commit = field.decode()
    return found


def how_many_are_apart(
    head: str, commits: Sequence[str], changes: Mapping[str, list[FileChange]], parents: Mapping[str, list[str]]
) -> int:
    """How many of the commits, from the first one, are each other's strangers. `parents` has what the head does not."""
    history: set[str] = set()
    paths: set[bytes] = set()
    folders: set[bytes] = set()
    for number, commit in enumerate(commits):
        behind, ends = _behind(commit, parents)
        own = {change.path for change in changes[commit]}
        own_folders = {folder for path in own for folder in _folders_of(path)}
        is_stranger = (
            head in ends
            and history.isdisjoint(behind)
            and all(change.is_plain for change in changes[commit])
            and paths.isdisjoint(own | own_folders)
            and folders.isdisjoint(own)
        )
        if not is_stranger:
            return number
        history |= behind
        paths |= own
        folders |= own_folders
    return len(commits)


def _behind(commit: str, parents: Mapping[str, list[str]]) -> tuple[set[str], set[str]]:
    """The commit and what stands behind it that the head does not have; and where that ends."""
    found, ends, open_ones = set[str](), set[str](), [commit]
    while open_ones:
        one = open_ones.pop()
        if one not in parents:
            ends.add(one)
        elif one not in found:
            found.add(one)
            open_ones.extend(parents[one])
    return found, ends


def _folders_of(path: bytes) -> Iterable[bytes]:
    parts = path.split(b"/")
    return (b"/".join(parts[:depth]) for depth in range(1, len(parts)))


def make_commits(head: str, wanted: Sequence[CommitToMake], cwd: Path) -> list[str] | None:
    """Make the merge commits one after the other, from `head` on, and return their ids; None where git can't."""
    stream = b"".join(_commands(head, wanted))
    made = run_git("fast-import", "--quiet", "--force", "--done", cwd=cwd, input=stream, check=False)
    ids = made.text.split()
    return ids if made.exit_code == 0 and len(ids) == len(wanted) else None


def _commands(head: str, wanted: Sequence[CommitToMake]) -> Iterable[bytes]:
    """gitfast-import's language."""
    parent = head
    for number, one in enumerate(wanted, start=1):
        message = one.message.encode()
        yield f"commit refs/heads/merged\nmark :{number}\n".encode()
        yield "".join(f"{role} {SIGNATURE} {one.seconds} +0000\n" for role in ("author", "committer")).encode()
        yield b"data %d\n%s\n" % (len(message), message)
        yield f"from {parent}\nmerge {one.commit}\n".encode()
        for change in one.changes:
            yield b"M %s %s %s\n" % (change.mode.encode(), change.object_id.encode(), _quoted(change.path))
        yield f"get-mark :{number}\n".encode()
        parent = f":{number}"
    yield b"done\n"


def _quoted(path: bytes) -> bytes:
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
