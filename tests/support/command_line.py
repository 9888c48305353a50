"""Programs as a user starts them, in a folder and a state folder of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from orchestrator.cli.main import main

ROOT_OF_THE_PROJECT: Final = Path(__file__).parents[2]
NEW_REPOSITORY: Final = ROOT_OF_THE_PROJECT / "examples" / "bookstore" / "new_repository.sh"


def run_program(*command: str | Path, cwd: Path, state_dir: Path, timeout_seconds: float = 150) -> str:
    """What the program printed on stdout. A failing exit code fails the test with all that it said."""
    done = start_program(*command, cwd=cwd, state_dir=state_dir, timeout_seconds=timeout_seconds)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start_program(
    *command: str | Path, cwd: Path, state_dir: Path, timeout_seconds: float = 150
) -> subprocess.CompletedProcess[str]:
    """The program's end, whatever its exit code. It finds `orchestrator` and `pytest` of this installation first."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ORCHESTRATOR_STATE_DIR": str(state_dir),
    }
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**inherited, **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
    )


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class InProcess:
    """The command line in this process: what a program of its own would do, without its start of a second."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, code: int = 0) -> Said:
        """Run the command. Another exit code than `code`, or a traceback, fails the test."""
        self.monkeypatch.setattr(sys, "argv", ["orchestrator", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self.capsys.readouterr()
        assert end.value.code == code, f"{words} ended with {end.value.code}:\n{out}\n{err}"
        assert "Traceback" not in err
        return Said(code, out, err)


def command_line_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, database_url: str, state_dir: Path
) -> InProcess:
    """The command line on a test's own database, with no other setting."""
    for name in [name for name in os.environ if name.startswith("ORCHESTRATOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", database_url)
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(state_dir))
    return InProcess(monkeypatch, capsys)
