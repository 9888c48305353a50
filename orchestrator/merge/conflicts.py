"""What a merge that failed says: which files, in what way, between which subtasks.

The format is that of `git merge-tree --write-tree -z --messages` (git-merge-tree(1), "OUTPUT"): the tree, the stages of the
conflicted files, an empty field, then messages as count, paths, type, text; every field ends with a NUL.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

FILES_IN_A_SENTENCE: Final = 10
GENERAL_WORDS: Final = frozenset({"content", "add/add"})
SYMLINK: Final = "120000"
GITLINK: Final = "160000"


@dataclass(frozen=True)
class ConflictedFile:
    """`kind` in git's words: content, add/add, modify/delete, rename/delete, file/directory, …; also binary, mode, symlink.

    Bytes of `path` that are no UTF-8 show as `\\xff`.
    """

    path: str
    kind: str


@dataclass(frozen=True)
class Conflict:
    """A subtask whose change could not be merged, and those merged before it that changed the same files."""

    subtask_id: int
    other_subtask_ids: tuple[int, ...]
    files: tuple[ConflictedFile, ...]

    def describe(self) -> str:
        """One sentence that names the files and the subtasks."""
        shown = [f"{_printable(file.path)} ({file.kind})" for file in self.files[:FILES_IN_A_SENTENCE]]
        if len(self.files) > FILES_IN_A_SENTENCE:
            shown.append(f"{len(self.files) - FILES_IN_A_SENTENCE} more files")
        match self.other_subtask_ids:
            case ():
                others = "what is on the integration branch"
            case (other,):
                others = f"subtask {other}"
            case others_:
                others = f"subtasks {_listed([str(other) for other in others_])}"
        return f"Subtask {self.subtask_id} conflicts with {others} in {_listed(shown)}."


@dataclass(frozen=True)
class MergeReport:
    """`tree` is good to commit only when `files` is empty. `paths` are all names involved, also from before a rename."""

    tree: str
    files: tuple[ConflictedFile, ...] = ()
    paths: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class _Message:
    paths: tuple[bytes, ...]
    type: str
    text: str

    @property
    def kind(self) -> str | None:
        """The word in the parentheses of `CONFLICT (…)`; None for a message that tells of no conflict."""
        if not self.type.startswith(("CONFLICT", "ERROR")):
            return None
        said = re.match(r"CONFLICT ?\(([^)]+)\)", self.text) or re.search(r"\(([^)]+)\)", self.type)
        word = said[1] if said else self.type
        return "submodule" if word.startswith("submodule") else word  # git adds why it could not look inside


def read_merge_tree(output: bytes, sides: Sequence[str]) -> MergeReport:
    """Read merge-tree's answer. `sides` are the two commits as they were named to git, which it adds to some paths."""
    fields = iter(output.split(b"\0"))
    tree = next(fields).decode()
    stages = _read_stages(fields)
    kinds: dict[bytes, str] = {}
    names: set[bytes] = set()
    for message in _read_messages(fields):
        if message.kind is None:
            continue
        paths = [_without_side(path, sides) for path in message.paths]
        names.update(paths)
        if kinds.get(paths[0], "content") == "content":  # of several words the general one says least
            kinds[paths[0]] = message.kind
    for path, versions in stages.items():
        path = _without_side(path, sides)  # noqa: PLW2901 - the name as the user knows it
        said = kinds.get(path)
        if path not in names or said in GENERAL_WORDS:
            kinds[path] = _kind_of_versions(versions) or said or "content"
        names.add(path)
    files = tuple(ConflictedFile(path.decode("utf-8", "backslashreplace"), kinds[path]) for path in sorted(kinds))
    return MergeReport(tree, files, tuple(sorted(names)))


def _read_stages(fields: Iterator[bytes]) -> dict[bytes, list[tuple[str, str]]]:
    """Path → (mode, object id) of each version, up to the empty field."""
    stages = defaultdict(list)
    for field in fields:
        if not field:
            break
        info, _, path = field.partition(b"\t")
        mode, object_id, _ = info.decode().split(" ")
        stages[path].append((mode, object_id))
    return stages


def _read_messages(fields: Iterator[bytes]) -> Iterator[_Message]:
    for count in fields:
        if not count.isdigit():  # the end, or advice for whoever resolves submodules by hand
            return
        paths = tuple(next(fields) for _ in range(int(count)))
        type_, text = next(fields), next(fields)
        yield _Message(paths, type_.decode(), text.decode("utf-8", "backslashreplace"))


def _kind_of_versions(versions: Sequence[tuple[str, str]]) -> str | None:
    """A better word than git's, where the versions tell one."""
    modes = {mode for mode, _ in versions}
    if GITLINK in modes:
        return "submodule"
    if SYMLINK in modes:
        return "symlink"
    same_content = len({object_id for _, object_id in versions}) == 1
    return "mode" if same_content and len(modes) > 1 else None


def _without_side(path: bytes, sides: Sequence[str]) -> bytes:
    """Git sets `file~<commit>` aside where a folder takes the file's name."""
    for side in sides:
        stem, mark, number = path.rpartition(b"~" + side.encode())
        if mark and re.fullmatch(rb"(_\d+)?", number):
            return stem
    return path


def _printable(path: str) -> str:
    return path if path.isprintable() else json.dumps(path, ensure_ascii=False)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
