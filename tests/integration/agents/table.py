"""The table of what was found: printed at the end, and written where `AGENTS_TABLE` names a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.integration.agents.programs import PROGRAMS, Program

COUNTED: Final = ("input_tokens", "output_tokens", "cache_read_tokens")


class Table:
    def __init__(self) -> None:
        self._found: dict[str, dict[str, str]] = {}

    def note(self, row: str, program: Program, found: str) -> None:
        self._found.setdefault(row, {})[program.name] = found

    def note_attempts(
        self,
        row: str,
        program: Program,
        attempts: Sequence[Mapping[str, Any]],
        requests: int,
        *,
        expected: Sequence[str],
    ) -> None:
        """How these ended, each kind of end once, how often the model was asked, and what was recorded of all of them."""
        found = list(dict.fromkeys(attempt["status"] for attempt in attempts))
        other = "" if found == list(expected) else f" (expected: {', '.join(expected)})"
        tokens = sum((attempt["usage"] or {}).get(kind, 0) for attempt in attempts for kind in COUNTED)
        cost_usd = sum(attempt["cost_usd"] or 0.0 for attempt in attempts)
        estimated = "~" if any(attempt["cost_estimated"] for attempt in attempts) else ""
        cost = f", {estimated}${cost_usd:.4f}" if cost_usd else ""
        self.note(row, program, f"{', '.join(found)}{other}, {requests} requests, {tokens:,} tokens{cost}")

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
