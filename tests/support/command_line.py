"""Programs as a user starts them, in a folder and a state folder of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

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
