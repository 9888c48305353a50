"""What happened under one seed, as the process that ran it tells the one that asked for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.points import Hit


@dataclass(frozen=True)
class Report:
    """A run is good when there are no complaints."""

    seed: int
    fired: tuple[str, ...] = ()
    """Faults from outside."""
    hits: tuple[Hit, ...] = ()
    went_on: int = 0
    """Attempts that went on with the session and the work of an earlier one."""
    complaints: tuple[str, ...] = ()
    seconds: float = 0.0
    processor_seconds: float = 0.0
    """Of all its processes, the servers' too."""

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Report:
        said = json.loads(file.read_text())
        hits = tuple(Hit(**hit) for hit in said.pop("hits"))
        return cls(
            hits=hits, **{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        )
