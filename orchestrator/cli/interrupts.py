"""What Ctrl-C means while a job is followed: once ends the job in order, twice leaves at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Inside it the first interruption is only noted; the second raises `KeyboardInterrupt`.

    TERM and HUP count like Ctrl-C: a job must not run on, paid for and unwatched, because a terminal or a build ended.
    """

    def __init__(self) -> None:
        self._count = 0
        self._taken = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def happened(self) -> bool:
        return self._count > 0

    def is_waiting(self) -> bool:
        """Whether an interruption was noted and nobody has taken it."""
        return self._count > 0 and not self._taken

    def take(self) -> bool:
        """True once: for the caller that acts on the interruption."""
        waiting = self.is_waiting()
        self._taken = self._taken or waiting
        return waiting

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
