"""A real git repository, with a test as its user."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

ISOLATED = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_NAME": "A Developer" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "developer@example.com" for role in ("AUTHOR", "COMMITTER")},
}


class Repository:
    """A checkout (or a bare repository) that a test plays the user of."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, files: Mapping[str, str | bytes | None] | None = None) -> Self:
        """A new repository on the branch main; with one commit where files are given."""
        path.mkdir(parents=True)
        repository = cls(path)
        repository.git("init", "--quiet", "--initial-branch=main")
        if files:
            repository.commit(files)
        return repository

    def git(self, *args: str, check: bool = True) -> str:
        command = ["git", *args]
        answer = subprocess.run(command, cwd=self.path, env=ISOLATED, check=check, capture_output=True).stdout
        return os.fsdecode(answer).rstrip("\n")

    def commit(self, files: Mapping[str, str | bytes | None], message: str = "change") -> str:
        """Write the files (None: delete), commit everything, and return the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        for name, content in files.items():
            path = self.path / name
            if content is None:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def content(self, commit: str, path: str) -> str:
        return self.git("show", f"{commit}:{path}")

    def files(self, commit: str) -> set[str]:
        return {name for name in self.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0") if name}
