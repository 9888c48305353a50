"""`python -m tests.chaos --seeds 20`: a line a seed; fails when an invariant broke or a fault never fired."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from orchestrator.fault_points import FAULT_POINTS
from tests.chaos.faults import FAULTS
from tests.chaos.run import Report, run_seed
from tests.chaos.schedule import DONE_WITHIN


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Seeded faults over a real fleet.")
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed; a failing one can be repeated by itself")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="what the processes of failed runs have said")
    options = parser.parse_args()
    # So that a run that is stopped takes its servers and processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    impossible = {name: why for name, fault in FAULTS.items() if (why := fault.why_not()) is not None}
    for name, why in impossible.items():
        print(f"without {name}: {why}")
    fired: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    went_on = 0
    failed: list[int] = []
    for seed in range(options.first, options.first + options.seeds):
        began = time.monotonic()
        report = run_seed(seed, options.keep_logs)
        fired.update(report.fired)
        fired.update(hit.point for hit in report.hits)
        actions.update(hit.action for hit in report.hits)
        went_on += report.went_on
        if report.complaints:
            failed.append(seed)
        _print(report, time.monotonic() - began)
    expected = {*FAULTS, *FAULT_POINTS} - set(impossible) if options.seeds >= DONE_WITHIN else set()
    silent = sorted(expected - set(fired))
    if expected and not went_on:
        silent.append("going on with a session")
    print(
        f"{sum(fired.values())} faults fired, {len(fired)} of {len(FAULTS) + len(FAULT_POINTS)} kinds; at fault points "
        + ", ".join(f"{count} × {action}" for action, count in sorted(actions.items()))
    )
    print(f"{went_on} attempts went on with the session of one that was cut off")
    for name in silent:
        print(f"{name} never fired")
    if failed:
        print("failed seeds: " + ", ".join(map(str, failed)))
    print(f"{options.seeds - len(failed)} passed, {len(failed) + len(silent)} failed")
    return 1 if failed or silent else 0


def _print(report: Report, seconds: float) -> None:
    what = [*report.fired, *map(str, report.hits)]
    if report.went_on:
        what.append(f"({report.went_on} went on)")
    print(f"seed {report.seed:4}  {'FAILED' if report.complaints else 'ok':6}  {seconds:5.1f} s  {' '.join(what)}")
    for complaint in report.complaints:
        print(f"      {complaint}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
