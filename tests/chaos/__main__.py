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
from tests.chaos.report import Report
from tests.chaos.run import run_seed
from tests.chaos.schedule import DONE_WITHIN
from tests.chaos.side_by_side import run_side_by_side


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Seeded faults over a real fleet.")
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed; a failing one can be repeated by itself")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once; each keeps a third of a core busy")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="what the processes of failed runs have said")
    parser.add_argument("--report", type=Path, metavar="FILE", help="run the first seed alone, and write its report")
    options = parser.parse_args()
    # So that a run that is stopped takes its servers and processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.report is not None:
        run_seed(options.first, options.keep_logs).write(options.report)
        return 0
    began = time.monotonic()
    impossible = {name: why for name, fault in FAULTS.items() if (why := fault.why_not()) is not None}
    for name, why in impossible.items():
        print(f"without {name}: {why}")
    seeds = range(options.first, options.first + options.seeds)
    reports = []
    for report in run_side_by_side(seeds, options.jobs, options.keep_logs):
        reports.append(report)
        _print(report)
    return _conclude(reports, {*FAULTS, *FAULT_POINTS} - set(impossible), time.monotonic() - began)


def _conclude(reports: list[Report], possible: set[str], seconds: float) -> int:
    """The sums over all seeds, and the exit code. What must have fired is asked of rows that are long enough."""
    fired = Counter(name for report in reports for name in (*report.fired, *(hit.point for hit in report.hits)))
    actions = Counter(hit.action for report in reports for hit in report.hits)
    went_on = sum(report.went_on for report in reports)
    silent = sorted(possible - set(fired)) if len(reports) >= DONE_WITHIN else []
    if len(reports) >= DONE_WITHIN and not went_on:
        silent.append("going on with a session")
    failed = sorted(report.seed for report in reports if report.complaints)
    print(
        f"{sum(fired.values())} faults fired, {len(fired)} of {len(FAULTS) + len(FAULT_POINTS)} kinds; at fault points "
        + ", ".join(f"{count} × {action}" for action, count in sorted(actions.items()))
    )
    print(f"{went_on} attempts went on with the session of one that was cut off")
    taken, busy = sum(report.seconds for report in reports), sum(report.processor_seconds for report in reports)
    print(
        f"{seconds:.0f} s; a seed took {taken / len(reports):.0f} s, and kept {busy / taken if taken else 0:.2f} of a core busy"
    )
    for name in silent:
        print(f"{name} never fired")
    if failed:
        print("failed seeds: " + ", ".join(map(str, failed)))
    print(f"{len(reports) - len(failed)} passed, {len(failed) + len(silent)} failed")
    return 1 if failed or silent else 0


def _print(report: Report) -> None:
    what = [*report.fired, *map(str, report.hits)]
    if report.went_on:
        what.append(f"({report.went_on} went on)")
    print(
        f"seed {report.seed:4}  {'FAILED' if report.complaints else 'ok':6}  {report.seconds:5.1f} s  {' '.join(what)}"
    )
    for complaint in report.complaints:
        print(f"      {complaint}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
