"""Real repositories for tests, and plans that work in them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")


def git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *IDENTITY, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def new_repository(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A repository on branch `main` with one commit that holds `files`."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return commit(folder, files or {"README": "hello\n"})


def commit(folder: Path, files: Mapping[str, str], message: str = "change") -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return folder


def refuse_pushes(repository: Path, words: str = "") -> Path:
    """Let a hook of this repository refuse every push, and say `words`. Returns the hook."""
    hook = repository / ".git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    hook.chmod(0o755)
    return hook


def shell(subtask_id: int, command: str, group: int | None = 1, **more: Any) -> dict[str, Any]:
    """A subtask of a plan that runs a command."""
    return {
        "subtask_id": subtask_id,
        "title": f"Step {subtask_id}",
        "parallel_group": group,
        "agent": {"name": "shell", "command": command},
        **more,
    }
