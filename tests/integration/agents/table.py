"""The table of what was found: printed at the end, and written where `AGENTS_TABLE` names a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.integration.agents.programs import PROGRAMS, Program


class Table:
    def __init__(self) -> None:
        self._found: dict[str, dict[str, str]] = {}

    def note(self, row: str, program: Program, found: str) -> None:
        self._found.setdefault(row, {})[program.name] = found

    def show(self) -> None:
        names = [program.name for program in PROGRAMS]
        lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        lines += [
            f"| {row} | {' | '.join(found.get(name, '') for name in names)} |" for row, found in self._found.items()
        ]
        text = "\n".join(lines) + "\n"
        sys.stdout.write(f"\n{text}")
        if file := os.environ.get("AGENTS_TABLE"):
            Path(file).write_text(text)
