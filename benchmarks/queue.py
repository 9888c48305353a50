"""What the queue costs: (a) no-ops against raw chords, (b) short agents against the ideal, (c) the step between groups,
(f) large groups against small ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from celery import Celery

from benchmarks.raw_chords import BODIES, HEADERS, RESULT
from benchmarks.stage import Result, Stage, median, no_ops, stage
from tests.support.waiting import wait_until

GROUPS, SIZE, SLOTS = 20, 50, 20
ROUNDS = 3


def against_raw_chords() -> list[Result]:
    """(a) The same shape, the same Redis, the same slots; one round of each in turn, medians."""
    ours, plain, shown = [], [], []
    with stage(slots=SLOTS) as here:
        for _ in range(ROUNDS):
            here.start(slots=SLOTS)
            here.run(no_ops(2, SIZE))
            ours.append(here.seconds_of(here.run(no_ops(GROUPS, SIZE))))
            for name in list(here.fleet.processes):
                here.fleet.stop(name)
            for option, seconds in (("--without-heartbeat", plain), ("--task-events", shown)):
                with _raw_workers(here, option) as raw_seconds:
                    raw_seconds(2)
                    seconds.append(raw_seconds(GROUPS))
    number = GROUPS * SIZE
    rates = {name: number / median(values) for name, values in (("ours", ours), ("plain", plain), ("shown", shown))}
    note = (
        f"{rates['ours']:.0f} attempts/s here; raw chords {rates['plain']:.0f}/s, with the events that Flower needs"
        f" {rates['shown']:.0f}/s"
    )
    what = f"{GROUPS} groups × {SIZE} no-ops on {SLOTS} slots, raw Celery chords = 1"
    return [
        Result("a", what, rates["ours"] / rates["plain"], "×", 0.6, more_is_better=True, note=note),
        Result("a", "the same, raw chords that send Flower's events = 1", rates["ours"] / rates["shown"], "×"),
    ]


@contextmanager
def _raw_workers(here: Stage, option: str) -> Iterator[Callable[[int], float]]:
    """The yardstick's two processes. What comes is a function: so many chords → seconds."""
    url = here.services.redis.url
    common = ("-m", "celery", "-A", "benchmarks.raw_chords", "worker", "--pool", "threads", "--without-gossip")
    common += ("--without-mingle", "--loglevel", "WARNING", option)
    headers = ("--concurrency", str(SLOTS), "--queues", HEADERS, "--hostname", "headers@raw")
    bodies = ("--concurrency", "4", "--queues", BODIES, "--hostname", "bodies@raw")
    processes = [here.python(*common, *own, RAW_CHORDS_URL=url) for own in (headers, bodies)]
    client = redis.Redis.from_url(here.services.redis.client_url)
    sender = Celery("sender", broker=url)

    def seconds(chords: int) -> float:
        client.delete(RESULT)
        sender.send_task("raw.next_chord", args=(None, chords, SIZE, time.time()), queue=BODIES)
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
    """(b) Agents of 50 ms, twice as many in a group as there are slots: each group takes 100 ms at best."""
    results = []
    with stage() as here:
        for slots in (8, 25):
            here.start(slots=slots)
            here.run(no_ops(2, 2 * slots, seconds=0.05))
            took = here.seconds_of(here.run(no_ops(GROUPS, 2 * slots, seconds=0.05)))
            ideal = GROUPS * 2 * 0.05
            what = f"{GROUPS} groups × {2 * slots} agents of 50 ms on {slots} slots, ideal = 1"
            note = f"{took:.2f} s, ideal {ideal:.2f} s"
            results.append(Result("b", what, took / ideal, "×", 1.15, note=note))
            for name in list(here.fleet.processes):
                here.fleet.stop(name)
        here.start(slots=8)
        took = here.seconds_of(here.run(no_ops(1, 800, seconds=0.05, at_once=16)))
        what = "one group of 800 agents of 50 ms on 8 slots, ideal = 1"
        results.append(Result("b", what, took / 5.0, "×", 1.15, note=f"{took:.2f} s, ideal 5.00 s"))
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
