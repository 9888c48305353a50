"""A folder, and the programs that a person starts there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Terminal:
    """Stands in `folder`. Nothing of the settings of whoever runs the tests is seen; `environment` is seen besides."""

    def __init__(self, folder: Path, state_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._state_dir = state_dir
        self._environment = dict(environment or {})
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.folder,
            env={**inherited, "ORCHESTRATOR_STATE_DIR": str(self._state_dir), **self._environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *words: str, code: int = 0) -> str:
        """All that it said. Another exit code, or a traceback, fails the test."""
        return self.end_of(self.start(*words), code=code)

    def end_of(self, process: subprocess.Popen[str], *, code: int = 0) -> str:
        out, err = process.communicate(timeout=90)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return out + err

    def read_until(self, process: subprocess.Popen[str], words: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                return
        raise AssertionError(f"{words!r} was never said")

    def await_question(self, process: subprocess.Popen[str], words: str) -> None:
        """Until it has asked, on stderr: a question ends without a line's end."""
        assert process.stderr is not None
        said = ""
        while words not in said:
            character = process.stderr.read(1)
            assert character, f"{words!r} was never asked, but: {said}"
            said += character

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()
