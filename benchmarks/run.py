"""`python -m benchmarks.run [a b …] [--write]`: measure, print, and with --write put the results into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import adapters, queue, recovery, repository, size
from benchmarks.stage import Result

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

MEASUREMENTS: dict[str, Sequence[Callable[[], list[Result]]]] = {
    "a": [queue.against_raw_chords],
    "b": [queue.saturated],
    "c": [queue.step_between_groups, repository.step_with_merge],
    "d": [repository.against_a_script],
    "e": [size.memory_of_waiting_agents],
    "f": [queue.large_groups],
    "g": [size.history],
    "h": [
        recovery.lost_worker,
        recovery.cancelled_job,
        recovery.reconciler_at_rest,
        recovery.price_of_recovery,
    ],
    "i": [adapters.overhead],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("which", nargs="*", metavar="a…i", help="the measurements to make; all of them by default")
    parser.add_argument("--write", action="store_true", help=f"put the results into {PAGE.name}")
    said = parser.parse_args()
    unknown = sorted(set(said.which) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are {', '.join(sorted(MEASUREMENTS))}")
    # So that a run that is stopped takes its servers and workers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()[0]
    results = []
    for key in sorted(said.which or MEASUREMENTS):
        for measure in MEASUREMENTS[key]:
            for result in measure():
                results.append(result)
                print(in_words(result), flush=True)
    if said.write:
        write(results, load)
    return 0


def in_words(result: Result) -> str:
    wanted = ""
    if result.target is not None:
        sign = "≥" if result.more_is_better else "≤"
        wanted = f"  (target {sign} {result.target:g}, {'met' if result.met else 'missed'})"
    note = f"  {result.note}" if result.note else ""
    return f"({result.key}) {result.what}: {shown(result)}{wanted}{note}"


def shown(result: Result) -> str:
    digits = 2 if result.unit in {"×", "MB", "%"} else 0
    return f"{result.value:.{digits}f} {result.unit}"


def write(results: Sequence[Result], load: float) -> None:
    """Replace the block between the two marks; the words around it are a person's."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" load before {load:.1f}."
    )
    lines = [machine, "", "| | what | measured | target | | details |", "|---|---|---|---|---|---|"]
    for result in results:
        sign = "≥" if result.more_is_better else "≤"
        target = "" if result.target is None else f"{sign} {result.target:g} {result.unit}"
        verdict = {None: "", True: "met", False: "**missed**"}[result.met]
        lines.append(f"| {result.key} | {result.what} | {shown(result)} | {target} | {verdict} | {result.note} |")
    PAGE.write_text("\n".join([before + BEGIN, *lines, END]) + after)


if __name__ == "__main__":
    sys.exit(main())
