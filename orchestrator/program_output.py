"""What a program writes: cut into lines as it comes, and its head and tail kept in bounded memory."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 1024 * 1024
"""Characters of a line that are handed on at once; a longer line comes in pieces. Agents report their end in one line
of JSON, which holds all that the model said last: it has to fit."""

HEAD_CHARACTERS: Final = 16 * 1024
TAIL_CHARACTERS: Final = 48 * 1024
"""The tail is the longer one: how a program ended stands there."""


class LineSplitter:
    """Bytes of one stream to lines of text, without their newlines. Never holds more than `LONGEST_LINE` and one read."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._characters = 0

    def feed(self, data: bytes) -> Iterator[str]:
        *ended, rest = self._decoder.decode(data).split("\n")
        for end in ended:
            yield self._take(end).removesuffix("\r")
        self._parts.append(rest)
        self._characters += len(rest)
        if self._characters >= LONGEST_LINE:
            yield self._take()

    def finish(self) -> Iterator[str]:
        """The last line, if it has no newline."""
        if rest := self._take(self._decoder.decode(b"", final=True)):
            yield rest

    def _take(self, end: str = "") -> str:
        line = "".join(self._parts) + end
        self._parts, self._characters = [], 0
        return line


@dataclass(frozen=True)
class BoundedOutput:
    """Both streams in the order in which they were read; where `text` was cut, a line of its own says so.

    `total_bytes` is what the program wrote, the part that was cut included.
    """

    text: str
    total_bytes: int

    def last_lines(self, count: int = 10, characters: int = 2000) -> str:
        """The end of it, for an error in words: at most `count` lines and `characters`."""
        return "\n".join(self.text.rstrip().splitlines()[-count:])[-characters:]


class OutputKeeper:
    """Takes any amount of text and keeps its head and its tail."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._head: list[str] = []
        self._head_room = HEAD_CHARACTERS
        self._tail: deque[str] = deque()
        self._tail_characters = 0
        self._cut_characters = 0

    def add(self, text: str) -> None:
        if self._head_room:
            self._head.append(text[: self._head_room])
            text = text[self._head_room :]
            self._head_room -= len(self._head[-1])
        if text:
            self._tail.append(text)
            self._tail_characters += len(text)
        while (excess := self._tail_characters - TAIL_CHARACTERS) > 0:
            oldest = self._tail.popleft()
            if len(oldest) > excess:
                self._tail.appendleft(oldest[excess:])
            cut = min(len(oldest), excess)
            self._tail_characters -= cut
            self._cut_characters += cut

    def output(self) -> BoundedOutput:
        head, tail = "".join(self._head), "".join(self._tail)
        mark = f"\n[… {self._cut_characters:,} characters cut …]\n" if self._cut_characters else ""
        return BoundedOutput(head + mark + tail, self.total_bytes)
