"""The driver's side of the fault points: arming them, and reading which were hit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.fault_points import LOG

ACTIONS: Final = ("kill", "stop", "delay")


@dataclass(frozen=True)
class Hit:
    """A process got to an armed point."""

    point: str
    action: str
    pid: int

    def __str__(self) -> str:
        return f"{self.point}:{self.action}"


class Points:
    """A folder of armed points (`orchestrator.fault_points`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def arm(self, point: str, action: str, seconds: float) -> None:
        """The next process that gets to `point` does `action`. Written beside and moved: nobody reads it by halves."""
        beside = self.folder / f"{point}.arming"
        beside.write_text(f"{action} {seconds}" if action == "delay" else action)
        beside.rename(self.folder / point)

    def disarm(self) -> list[str]:
        """Take back what nobody got to, and say what that was."""
        idle = []
        for path in sorted(self.folder.iterdir()):
            if path.name != LOG:
                path.unlink(missing_ok=True)
                idle.append(path.name)
        return idle

    def hits(self) -> list[Hit]:
        log = self.folder / LOG
        if not log.exists():
            return []
        return [Hit(point, action, int(pid)) for point, action, pid in map(str.split, log.read_text().splitlines())]
