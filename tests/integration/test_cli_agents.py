"""`orchestrator agents`: which agents there are, and whether their programs can run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a claude that will do, a codex that is too old, and a gemini that is broken."""
    for name, does in (
        ("claude", "echo '2.1.330 (Claude Code)'"),
        ("codex", "echo codex-cli 0.99.1"),
        ("gemini", "echo 'no node here' >&2; exit 7"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:{os.defpath}"


def run(path: str, *words: str) -> str:
    variables = {"PATH": path, "HOME": path.split(":", maxsplit=1)[0], "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "agents", *words],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_each_agent_says_whether_it_is_there_and_what_it_can_do(path: str, tmp_path: Path) -> None:
    told = {agent["name"]: agent for agent in json.loads(run(path, "--json"))["agents"]}
    keys = ("found", "version", "supported", "note")
    assert {name: tuple(told[name][key] for key in keys) for name in ("claude-code", "codex", "gemini", "aider")} == {
        "claude-code": (True, "2.1.330", True, ""),
        "codex": (True, "0.99.1", False, "version 0.160 or newer is needed"),
        "gemini": (True, None, False, f"{tmp_path}/gemini --version ended with exit code 7: no node here"),
        "aider": (False, None, False, "aider is not on the PATH"),
    }
    assert told["claude_code_local"]["version"] == "2.1.330"
    assert told["claude-code"]["capabilities"] == {
        "resume": True,
        "turn_limit": True,
        "budget": True,
        "tokens": "per run",
        "cost": "per session",
    }
    assert told["codex"]["capabilities"]["cost"] is None
    assert told["mini-swe-agent"]["permissions"] == ["full"]
    assert told["shell"]["supported"]


def test_a_person_reads_the_same_in_a_table(path: str) -> None:
    rows = {line.split()[0]: line for line in run(path).splitlines() if line.strip()}
    assert "ok" in rows["claude-code"]
    assert "resume, turn limit, budget, tokens, cost" in rows["claude-code"]
    assert "warn" in rows["codex"]
    assert "version 0.160 or newer is needed" in rows["codex"]
    assert "missing" in rows["aider"]
