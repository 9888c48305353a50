"""Lines as they come, and output in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.program_output import (
    HEAD_CHARACTERS,
    LONGEST_LINE,
    TAIL_CHARACTERS,
    BoundedOutput,
    LineSplitter,
    OutputKeeper,
)


def split(*reads: bytes) -> list[str]:
    splitter = LineSplitter()
    lines = [line for data in reads for line in splitter.feed(data)]
    return [*lines, *splitter.finish()]


def test_a_line_is_handed_on_when_its_newline_comes() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"one\ntw")) == ["one"]
    assert list(splitter.feed(b"o\n\nthree")) == ["two", ""]
    assert list(splitter.finish()) == ["three"]


def test_carriage_returns_go_with_the_newline_only() -> None:
    assert split(b"one\r\ntwo\rthree\n") == ["one", "two\rthree"]


def test_a_character_that_is_cut_by_a_read_comes_whole() -> None:
    assert split(b"caf\xc3", b"\xa9\n") == ["café"]


def test_what_is_no_utf8_becomes_replacement_characters() -> None:
    assert split(b"a\xffb\n", b"end\xc3") == ["a\N{REPLACEMENT CHARACTER}b", "end\N{REPLACEMENT CHARACTER}"]


def test_a_very_long_line_comes_in_pieces_and_nothing_is_held_back() -> None:
    read = b"x" * 65536
    splitter = LineSplitter()
    pieces = [piece for _ in range(40) for piece in splitter.feed(read)]
    assert [len(piece) for piece in pieces] == [LONGEST_LINE, LONGEST_LINE]
    assert sum(map(len, splitter.finish())) == 40 * 65536 - 2 * LONGEST_LINE


@given(st.binary(max_size=200), st.integers(1, 20))
def test_how_bytes_are_cut_into_reads_makes_no_difference(data: bytes, size: int) -> None:
    assert split(*(data[start : start + size] for start in range(0, len(data), size))) == split(data)


def test_short_output_is_kept_as_it_is() -> None:
    keeper = OutputKeeper()
    keeper.add("one\n")
    keeper.add("two\n")
    assert keeper.output().text == "one\ntwo\n"


def test_of_long_output_head_and_tail_are_kept_and_the_cut_is_marked() -> None:
    keeper = OutputKeeper()
    for number in range(100_000):
        keeper.add(f"line {number}\n")
    text = keeper.output().text
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 99999\n")
    assert "characters cut …]" in text
    assert len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS + 100


@given(st.lists(st.integers(0, 2 * TAIL_CHARACTERS), max_size=6))
def test_the_mark_says_how_much_was_cut(sizes: list[int]) -> None:
    keeper = OutputKeeper()
    for size in sizes:
        keeper.add("x" * size)
    text, total = keeper.output().text, sum(sizes)
    cut = max(0, total - HEAD_CHARACTERS - TAIL_CHARACTERS)
    assert text.count("x") == total - cut
    assert (f"[… {cut:,} characters cut …]" in text) == (cut > 0)


def test_the_last_lines_are_bounded_in_lines_and_characters() -> None:
    output = BoundedOutput("first\n" + "x" * 5000 + "\nlast\n\n", 5012)
    assert output.last_lines(1) == "last"
    assert len(output.last_lines(10, characters=100)) == 100
