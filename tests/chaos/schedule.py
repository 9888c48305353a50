"""What happens under a seed: pure, so that a seed can be repeated, and that none of the list is left out of twenty."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.fault_points import FAULT_POINTS
from tests.chaos.points import ACTIONS

POINTS: Final = sorted(FAULT_POINTS)
NET: Final = "reconciler_after_look_before_move"
UNSENT: Final = "submission_after_commit_before_publish"
EACH_A_RUN: Final = 2
"""Of points and of faults, so many come in turn, and one more of each by chance."""
DONE_WITHIN: Final = 20
"""Any row of so many seeds has every point and every fault in it."""


@dataclass(frozen=True)
class ArmedPoint:
    """`after_seconds` counts from the job's first agent, None: armed from the beginning. `seconds` is for how long the
    process is delayed, or beyond its lease stopped."""

    point: str
    action: str
    after_seconds: float | None
    seconds: float


@dataclass(frozen=True)
class Schedule:
    points: tuple[ArmedPoint, ...]
    faults: tuple[str, ...]
    pauses: tuple[float, ...]
    """Before each fault, in seconds."""


def draw(seed: int, faults: Sequence[str]) -> Schedule:
    """The same seed draws the same, in the same order. Over 26 seeds each point is met with each action."""
    rng = random.Random(f"schedule {seed}")
    turns = [(seed - 1) * EACH_A_RUN + n for n in range(EACH_A_RUN)]
    points = [(POINTS[turn % len(POINTS)], ACTIONS[turn // len(POINTS) % len(ACTIONS)]) for turn in turns]
    others = [point for point in POINTS if point not in dict(points)]
    points.append((rng.choice(others), rng.choice(ACTIONS)))
    if NET in dict(points) and UNSENT not in dict(points):
        points.append(
            (UNSENT, "kill")
        )  # a healthy fleet leaves the net nothing to move, and its point would not be met
    chosen = [faults[turn % len(faults)] for turn in turns] + [rng.choice(faults)]
    rng.shuffle(chosen)
    return Schedule(
        points=tuple(
            ArmedPoint(
                point,
                action,
                None if point == NET or point.startswith("submission") else rng.choice([None, rng.uniform(0.0, 2.0)]),
                rng.uniform(0.3, 1.5),
            )
            for point, action in points
        ),
        faults=tuple(chosen),
        pauses=tuple(rng.uniform(0.0, 2.0) for _ in chosen),
    )
