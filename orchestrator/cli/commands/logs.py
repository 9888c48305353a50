"""`orchestrator logs`: what agents wrote, and the checks of groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import JsonOption, NewestJobArgument

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from orchestrator.state.group_checks import GroupCheck
    from orchestrator.state.log_chunks import LogChunk, LogLine
    from orchestrator.state.views import AttemptHead


def logs(
    job: NewestJobArgument = None,
    subtask: Annotated[
        int | None, typer.Argument(metavar="SUBTASK", help="A subtask's id. Default: all of the job.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job, or the subtask, ends.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the attempt with this number.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the last N lines of each attempt.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Say when each line was written.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what agents wrote.

    Subtask by subtask and attempt by attempt, then what the groups' checks wrote; what comes in while -f waits is shown
    as it comes.
    """
    from orchestrator.access.connect import chosen_job, database
    from orchestrator.cli.render import say
    from orchestrator.settings import load_settings
    from orchestrator.state.queries import require_attempt

    printer = _Printer(as_json=as_json, timestamps=timestamps)
    with database() as engine:
        job_id = chosen_job(engine, job)
        if attempt is not None and not follow:
            require_attempt(engine, job_id, subtask, attempt)
        reader = _LogReader(engine, job_id, subtask, attempt)
        # What is there already, cut to its tail if wanted; then, with -f, whatever comes.
        for line in reader.stored(tail):
            printer.show(line)
        if follow:
            for line in reader.coming(load_settings().unreachable_grace_seconds):
                printer.show(line)
    if not printer.has_shown and not as_json:
        say("Nothing was written." if tail != 0 else "")


@dataclass(frozen=True)
class _Line:
    """A line of an attempt; without `said`, the place where lines were cut."""

    attempt: AttemptHead
    said: LogLine | None
    is_one_of_many: bool


@dataclass
class _LogReader:
    engine: Engine
    job_id: str
    subtask_id: int | None
    attempt_number: int | None
    _attempts: dict[int, AttemptHead] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _last_check: int = 0

    def stored(self, tail: int | None) -> Iterator[_Line | GroupCheck]:
        """What is stored now. With `tail` only so many lines of each attempt are kept, and held, until it is read."""
        last: dict[int, deque[_Line]] = {}
        checks: list[GroupCheck] = []
        while found := self._read()[0]:
            if tail is None:
                yield from found
                continue
            for one in found:
                if isinstance(one, _Line):
                    last.setdefault(one.attempt.id, deque(maxlen=tail)).append(one)
                else:
                    checks.append(replace(one, output="\n".join(one.output.splitlines()[-tail:] if tail else ())))
        for kept in last.values():
            yield from kept
        yield from checks if tail else ()

    def coming(self, grace_seconds: float) -> Iterator[_Line | GroupCheck]:
        """What is written from now on, until the job or the subtask is final."""
        from orchestrator.access.follow import Problem, readings
        from orchestrator.cli.render import say

        in_trouble = False
        for found in readings(self.engine, self.job_id, self._read, grace_seconds=grace_seconds):
            if isinstance(found, Problem):
                if not in_trouble:
                    say(found.words)
                in_trouble = True
                continue
            in_trouble = False
            yield from found

    def _read(self) -> tuple[Sequence[_Line | GroupCheck], bool]:
        """The next lines, and whether they are the last."""
        from orchestrator.state.group_checks import group_checks
        from orchestrator.state.log_chunks import read_log_chunks
        from orchestrator.state.queries import attempt_heads, is_open

        with self.engine.connect() as connection:
            # Asked first: an attempt's last lines are written before its end is recorded.
            goes_on = is_open(connection, self.job_id, self.subtask_id)
            chunks = read_log_chunks(connection, self.job_id, self.subtask_id, after=self._seen)
            if any(chunk.attempt_id not in self._attempts for chunk in chunks):
                self._attempts = attempt_heads(connection, self.job_id, self.subtask_id)
            # A check is the whole job's, and comes after what it has checked.
            if not chunks and self.subtask_id is None and self.attempt_number is None:
                if checks := group_checks(connection, self.job_id, after_id=self._last_check):
                    self._last_check = checks[-1].id
                return checks, not goes_on
        lines: list[_Line] = []
        for chunk in chunks:
            lines += self._lines(chunk)
            self._seen[chunk.attempt_id] = chunk.sequence
        return lines, not goes_on and not chunks

    def _lines(self, chunk: LogChunk) -> Iterator[_Line]:
        from orchestrator.state.log_chunks import decode_chunk

        attempt = self._attempts.get(chunk.attempt_id)
        if attempt is None or self.attempt_number not in (None, attempt.number):
            return
        is_one_of_many = self.subtask_id is None
        if chunk.sequence > self._seen.get(chunk.attempt_id, 0) + 1:
            yield _Line(attempt, None, is_one_of_many)
        for said in decode_chunk(chunk.content):
            yield _Line(attempt, said, is_one_of_many)


@dataclass
class _Printer:
    as_json: bool
    timestamps: bool
    has_shown: bool = False

    def show(self, line: _Line | GroupCheck) -> None:
        self.has_shown = True
        if self.as_json:
            self._show_json(line)
            return
        from orchestrator.text import printable

        if not isinstance(line, _Line):
            for text in _words_of_check(line):
                print(f"{self._time(line.ended_at)}{_name_of_group(line)} | {text}", flush=True)
            return
        text = "… lines were cut here …" if line.said is None else printable(line.said.text)
        print(f"{self._prefix(line)}{text}", flush=True)

    def _prefix(self, line: _Line) -> str:
        names = [f"#{line.attempt.subtask_id}"] if line.is_one_of_many else []
        names += [f"attempt {line.attempt.number}"] if line.attempt.number > 1 else []
        who = f"{' '.join(names)} | " if names else ""
        if not self.timestamps or line.said is None:
            return who
        return self._time(line.attempt.started_at + timedelta(seconds=line.said.seconds)) + who

    def _time(self, at: datetime) -> str:
        return f"{at.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3] + " " if self.timestamps else ""

    def _show_json(self, line: _Line | GroupCheck) -> None:
        from orchestrator.cli.documents import group_check
        from orchestrator.cli.render import instant, print_json

        if not isinstance(line, _Line):
            print_json({"type": "check", **group_check(line)}, one_line=True)
            return

        document: dict[str, Any] = {
            "type": "line" if line.said else "cut",
            "subtask_id": line.attempt.subtask_id,
            "attempt": line.attempt.number,
        }
        if line.said is not None:
            document |= {
                "at": instant(line.attempt.started_at + timedelta(seconds=line.said.seconds)),
                "stream": line.said.stream,
                "text": line.said.text,
            }
        print_json(document, one_line=True)


def _name_of_group(check: GroupCheck) -> str:
    return f"group {check.group_number}" + (f" run {check.run}" if check.run > 1 else "")


def _words_of_check(check: GroupCheck) -> Iterator[str]:
    from orchestrator.cli.describe import check_words
    from orchestrator.text import in_one_line, printable

    yield f"check: {in_one_line(check.command)}"
    yield from printable(check.output).splitlines()
    yield check_words(check)
