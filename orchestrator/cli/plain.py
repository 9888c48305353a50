"""A job's progress as lines: words for people without a terminal, JSON lines for programs."""

from __future__ import annotations

from types import TracebackType
from typing import IO, Protocol, Self

from orchestrator.access.follow import Update
from orchestrator.cli import documents
from orchestrator.cli.describe import event_words
from orchestrator.cli.render import print_json, say


class ProgressView(Protocol):
    """Shows a job while it runs. Leaving the context puts the terminal back as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, update: Update) -> None: ...

    def note(self, text: str) -> None:
        """A remark of the command itself: it is being cancelled."""


class _Lines:
    """What both forms of lines share: remarks go to stderr, a problem is told once and not at each try."""

    def __init__(self) -> None:
        self._in_trouble = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note(self, text: str) -> None:
        say(text)

    def _tell_problem(self, update: Update) -> None:
        if update.problem is not None and not self._in_trouble:
            say(update.problem)
        elif update.problem is None and self._in_trouble:
            say("The database answers again.")
        self._in_trouble = update.problem is not None


class PlainView(_Lines):
    """One line for each event that a person cares for, with the time of day where the reader is."""

    def __init__(self, to: IO[str]) -> None:
        super().__init__()
        self._to = to

    def show(self, update: Update) -> None:
        self._tell_problem(update)
        if update.job is None:
            return
        for event in update.events:
            words = event_words(update.job, event)
            if words is not None:
                print(f"{event.at.astimezone():%H:%M:%S} {words}", file=self._to)
        self._to.flush()


class JsonView(_Lines):
    """Each event as one JSON object on a line."""

    def show(self, update: Update) -> None:
        self._tell_problem(update)
        for event in update.events:
            print_json(documents.event(event), one_line=True)
