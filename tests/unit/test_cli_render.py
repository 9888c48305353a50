"""Values as people and programs see them."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from orchestrator.cli.commands.list_jobs import print_jobs
from orchestrator.cli.render import counted, instant, print_json, print_table, shortened
from orchestrator.state.views import JobLine
from orchestrator.text import duration, first_line, in_one_line, plural, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (-0.2, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 m 00 s"),
        (72, "1 m 12 s"),
        (3600, "1 h 00 m"),
        (7380, "2 h 03 m"),
        (273600, "3 d 04 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_what_an_agent_wrote_can_not_steer_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;title\x07red \x1b[31malert\x1b[0m\r\x08\x9b1m \u202egnp.exe"
    assert printable(hostile) == "red alert1m gnp.exe"


@given(st.text())
def test_nothing_printable_holds_a_control_character(text: str) -> None:
    assert not any(character < " " and character not in "\t\n" for character in printable(text))


def test_lines_of_others_become_one() -> None:
    assert first_line("\n  \n  here\nthere") == "here"
    assert in_one_line("It failed. Its last lines:\n  oh\n") == "It failed. Its last lines: oh"
    assert in_one_line(None) == ""


def test_counts_leave_out_what_is_none() -> None:
    assert counted({"completed": 12, "failed": 1, "in_progress": 7}) == "12 of 20, 1 failed, 7 running"
    assert counted({}) == "0 of 0"
    assert (plural(1, "agent"), plural(2, "agent")) == ("1 agent", "2 agents")


def test_times_are_utc_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 1, 2, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    print_json({"at": instant(at)})
    assert json.loads(capsys.readouterr().out) == {"format": 1, "at": "2026-01-02T10:00:00.000Z"}


@given(st.text(), st.integers(1, 40))
def test_a_shortened_text_fits(text: str, cells: int) -> None:
    assert cell_len(shortened(text, cells)) <= cells


def _table(*, width: int, is_terminal: bool) -> list[str]:
    output = io.StringIO()
    to = Console(file=output, width=width, force_terminal=is_terminal, no_color=True, highlight=False)
    rows = [(1, "[bold]brackets[/bold] and 日本 " + "long " * 20, "ok"), (22, "short", None)]
    print_table(to, ("#", "title", "state"), rows, longest={"title": 20})
    return output.getvalue().splitlines()


def test_a_table_loses_nothing_to_a_pipe() -> None:
    header, first, second = _table(width=30, is_terminal=False)
    assert first.startswith("1   [bold]brackets[/bold] and 日本 long")
    assert first.endswith("long  ok")
    assert second == "22  short"
    assert header.split() == ["#", "title", "state"]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_list_of_jobs_shows_titles_on_a_narrow_terminal_and_everything_in_a_pipe(width: int) -> None:
    at = datetime(2026, 1, 2, 12, 0, 30).astimezone()
    counts = {"completed": 1, "failed": 4, "timeout": 2, "skipped": 1}
    job = JobLine("3f2a9c1b04d7", "The title", "completed", None, None, None, at, at, at, 275.0, counts)

    def printed(*, is_terminal: bool) -> str:
        output = io.StringIO()
        print_jobs(Console(file=output, width=width, force_terminal=is_terminal, color_system=None), [job])
        return output.getvalue()

    shown = printed(is_terminal=True)
    assert "The title" in shown
    assert "01-02 12:00" in shown
    assert ("2026-01-02 12:00:30" in shown) == (width >= 100)
    piped = printed(is_terminal=False)
    assert "2026-01-02 12:00:30  4 m 35 s  1 of 8, 4 failed, 2 timed out, 1 skipped  The title" in piped


def test_a_table_fits_its_terminal() -> None:
    lines = _table(width=30, is_terminal=True)
    assert len(lines) == 3
    assert all(cell_len(printable(line)) <= 30 for line in lines)
    assert "…" in lines[1]
