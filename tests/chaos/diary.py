"""What the agents wrote down of themselves: the only witness that does not ask the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Life:
    """One agent's, by its own words. `token` is the attempt's cookie, whose last part is the attempt's id; times in
    seconds of the machine's clock. An agent that was killed has no end of its own: its last beat stands for it."""

    subtask_id: int
    number: int
    token: str
    starts: int
    began: float
    last_seen: float
    finds_all: bool = True
    """False where it remembered work that was not there."""

    @property
    def attempt_id(self) -> int:
        return int(self.token.rpartition(".")[2])


def read_diary(path: Path) -> list[Life]:
    """One life a token."""
    lines: dict[str, list[tuple[str, int, int, float]]] = {}
    for line in path.read_text().splitlines():
        mark, subtask_id, number, token, instant = line.split()
        lines.setdefault(token, []).append((mark, int(subtask_id), int(number), float(instant)))
    return [
        Life(
            subtask_id=said[0][1],
            number=said[0][2],
            token=token,
            starts=sum(mark == "+" for mark, *_ in said),
            began=min(instant for *_, instant in said),
            last_seen=max(instant for *_, instant in said),
            finds_all=all(mark != "!" for mark, *_ in said),
        )
        for token, said in lines.items()
    ]


def overlaps(lives: list[Life]) -> Iterator[tuple[Life, Life, float]]:
    """Agents that were at work at one subtask at once: the earlier, the later, and for how many seconds."""
    ordered = sorted(lives, key=lambda life: life.began)
    for position, earlier in enumerate(ordered):
        for later in ordered[position + 1 :]:
            seconds = min(earlier.last_seen, later.last_seen) - later.began
            if earlier.subtask_id == later.subtask_id and seconds > 0:
                yield earlier, later, seconds
