"""What the queue costs: (a) no-ops against raw chords, (b) short agents against the ideal, (c) the step between groups,
(f) large groups against small ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import redis
from celery import Celery

from benchmarks.raw_chords import BODIES, HEADERS, RESULT
from benchmarks.stage import Result, Stage, median, no_ops, stage
from tests.support.waiting import wait_until

GROUPS, SIZE, SLOTS = 20, 50, 20
ROUNDS = 5
SHORT = 0.05


class RawSeconds(Protocol):
    """So many chords of this size, whose headers sleep so many seconds → how many seconds all of them took."""

    def __call__(self, chords: int, size: int, sleep: float = 0.0) -> float: ...


def against_raw_chords() -> list[Result]:
    """(a) The same shape, the same Redis, the same slots; one round of each in turn, the median of the rounds' ratios."""
    ours, plain, shown = [], [], []
    with stage(slots=SLOTS) as here:
        for _ in range(ROUNDS):
            here.start(slots=SLOTS)
            here.run(no_ops(2, SIZE))
            ours.append(here.seconds_of(here.run(no_ops(GROUPS, SIZE))))
            here.stop()
            for option, seconds in (("--without-heartbeat", plain), ("--task-events", shown)):
                with _raw_workers(here, option, slots=SLOTS) as raw_seconds:
                    raw_seconds(2, SIZE)
                    seconds.append(raw_seconds(GROUPS, SIZE))
    here_rate, plain_rate, shown_rate = (GROUPS * SIZE / median(seconds) for seconds in (ours, plain, shown))
    note = (
        f"{here_rate:.0f} attempts/s here; raw chords {plain_rate:.0f}/s, with the events that Flower needs"
        f" {shown_rate:.0f}/s"
    )
    what = f"{GROUPS} groups × {SIZE} no-ops on {SLOTS} slots, raw Celery chords = 1"
    return [
        Result("a", what, _median_ratio(plain, ours), "×", 0.6, more_is_better=True, note=note),
        Result("a", "the same, raw chords that send Flower's events = 1", _median_ratio(shown, ours), "×"),
    ]


def _median_ratio(raw: Sequence[float], ours: Sequence[float]) -> float:
    """By rounds: what else the machine does changes from one to the next."""
    return median([one / other for one, other in zip(raw, ours, strict=True)])


@contextmanager
def _raw_workers(here: Stage, option: str, *, slots: int) -> Iterator[RawSeconds]:
    """The yardstick's two processes."""
    url = here.services.redis.url
    common = ("-m", "celery", "-A", "benchmarks.raw_chords", "worker", "--pool", "threads", "--without-gossip")
    common += ("--without-mingle", "--loglevel", "WARNING", option)
    headers = ("--concurrency", str(slots), "--queues", HEADERS, "--hostname", "headers@raw")
    bodies = ("--concurrency", "4", "--queues", BODIES, "--hostname", "bodies@raw")
    processes = [here.python(*common, *own, RAW_CHORDS_URL=url) for own in (headers, bodies)]
    client = redis.Redis.from_url(here.services.redis.client_url)
    sender = Celery("sender", broker=url)

    def seconds(chords: int, size: int, sleep: float = 0.0) -> float:
        client.delete(RESULT)
        sender.send_task("raw.next_chord", args=(None, chords, size, sleep, time.time()), queue=BODIES)
        found = wait_until(lambda: client.get(RESULT), "the raw chords are through", timeout_seconds=120)
        return float(found)  # type: ignore[arg-type]

    try:
        here.wait_for_nodes(2)
        yield seconds
    finally:
        sender.close()
        client.close()
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def saturated() -> list[Result]:
    """(b) Agents of 50 ms, twice as many at once as there are slots; beside them what raw chords take for the same."""
    results = []
    with stage() as here:
        for slots, groups, size in ((8, GROUPS, 16), (25, GROUPS, 50), (8, 1, 800)):
            ideal = groups * size * SHORT / slots
            here.start(slots=slots)
            here.run(no_ops(2, 2 * slots, seconds=SHORT))
            took = here.seconds_of(here.run(no_ops(groups, size, seconds=SHORT, at_once=2 * slots)))
            here.stop()
            raw = {}
            for option in ("--without-heartbeat", "--task-events"):
                with _raw_workers(here, option, slots=slots) as raw_seconds:
                    raw_seconds(2, 2 * slots, SHORT)
                    raw[option] = raw_seconds(groups, size, SHORT)
            shape = f"{groups} groups × {size}" if groups > 1 else f"one group of {size}"
            note = f"{took:.2f} s, ideal {ideal:.2f} s"
            results.append(
                Result("b", f"{shape} agents of 50 ms on {slots} slots, ideal = 1", took / ideal, "×", 1.15, note=note)
            )
            plain, shown = raw.values()
            note = f"{plain:.2f} s; with the events that Flower needs {shown:.2f} s"
            results.append(Result("b", "what raw Celery chords take for the same", plain / ideal, "×", note=note))
    return results


def step_between_groups() -> list[Result]:
    """(c) From the last agent's end to the next group's first agent, nothing to merge."""
    with stage() as here:
        here.start(slots=10)
        here.run(no_ops(3, 10))
        gaps = here.gaps_ms(here.run(no_ops(GROUPS, 10, seconds=0.05)))
    note = f"the slowest of {len(gaps)}: {max(gaps):.0f} ms"
    return [Result("c", "last end → next group's first start, without git (median)", median(gaps), "ms", 50, note=note)]


def large_groups() -> list[Result]:
    """(f) What a subtask costs in one group of 100, and in one of 5,000; 50 at once in both."""
    with stage() as here:
        here.start(slots=SLOTS)
        here.run(no_ops(1, 100, at_once=50))
        small = median([here.seconds_of(here.run(no_ops(1, 100, at_once=50))) / 100 for _ in range(5)])
        large = here.seconds_of(here.run(no_ops(1, 5000, at_once=50))) / 5000
    note = f"{1000 * large:.2f} ms against {1000 * small:.2f} ms a subtask"
    return [Result("f", "cost a subtask in a group of 5,000, in one of 100 = 1", large / small, "×", 1.3, note=note)]
