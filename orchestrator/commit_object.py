"""Writing a commit without a program: a merge of ten branches waits for each one that it starts.

The format is that of git's own `commit-tree` for the same tree, parents, identity, date and message, byte for byte
(gitformat-loose, "git cat-file commit"): a loose object is the zlib stream of `commit <size>\\0<content>`, under its hash.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.git import IDENTITY, object_format

SIGNATURE: Final = f"{IDENTITY['GIT_COMMITTER_NAME']} <{IDENTITY['GIT_COMMITTER_EMAIL']}>"


def write_commit(objects: Path, *, tree: str, parents: Sequence[str], message: str, seconds: int) -> str:
    """Write a commit of ours into a repository's `objects` folder, and return its id. `seconds`: its date, since 1970."""
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"{role} {SIGNATURE} {seconds} +0000" for role in ("author", "committer")]
    content = "\n".join([*lines, "", message]).encode()
    whole = b"commit %d\0" % len(content) + content
    name = hashlib.new(object_format(tree), whole).hexdigest()
    folder = objects / name[:2]
    folder.mkdir(exist_ok=True)
    being_written = folder / f"{name[2:]}.{os.getpid()}"
    being_written.write_bytes(zlib.compress(whole))
    being_written.chmod(0o444)
    being_written.replace(folder / name[2:])
    return name
