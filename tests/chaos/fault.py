"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.world import SLOTS, World

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def why_no_other_clock() -> str | None:
    return None if FAKETIME else "libfaketime is not installed"


@dataclass(frozen=True)
class Fault:
    """Happens once, repairs itself, and says whether it met anything to break.

    `costs` are the ends that it may give to an agent that had begun to work: nothing else excuses a second run.
    """

    happen: Callable[[World, str], bool]
    costs: tuple[str, ...] = ()
    most: int = SLOTS
    """How many agents it may give each of these ends."""
    after_the_job: bool = False
    """It happens when the job is final."""
    prepare: Callable[[World], None] = lambda world: None
    """Before the first process starts."""
    why_not: Callable[[], str | None] = lambda: None
    """Why it can't happen on this machine; None where it can."""

    @property
    def name(self) -> str:
        return self.happen.__name__
