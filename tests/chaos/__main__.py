"""`python -m tests.chaos --seeds 20`: a line a seed; fails when an invariant broke or a fault never fired."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.chaos.faults import FAULTS
from tests.chaos.run import Report, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Seeded faults over a real fleet.")
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed; a failing one can be repeated by itself")
    options = parser.parse_args()
    fired: Counter[str] = Counter()
    failed: list[int] = []
    for seed in range(options.first, options.first + options.seeds):
        began = time.monotonic()
        report = run_seed(seed)
        fired.update(report.fired)
        if report.complaints:
            failed.append(seed)
        _print(report, time.monotonic() - began)
    silent = sorted({fault.__name__ for fault in FAULTS} - set(fired)) if options.seeds >= len(FAULTS) else []
    print(f"{options.seeds - len(failed)} passed, {len(failed)} failed")
    for name in silent:
        print(f"the fault {name} never fired")
    if failed:
        print("failed seeds: " + ", ".join(map(str, failed)))
    return 1 if failed or silent else 0


def _print(report: Report, seconds: float) -> None:
    print(
        f"seed {report.seed:4}  {'FAILED' if report.complaints else 'ok':6}  {seconds:5.1f} s  {' '.join(report.fired)}"
    )
    for complaint in report.complaints:
        print(f"      {complaint}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
