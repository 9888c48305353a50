"""Several seeds at once on one machine, each in a process of its own, with servers, folders and a fleet of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from tests.chaos.report import Report

LONGEST_SECONDS: Final = 900.0
"""A seed that takes longer hangs: its own waits are over by then."""
CLOSING_SECONDS: Final = 60.0
"""For a seed that is asked to stop to end what it has started."""


def run_side_by_side(seeds: Sequence[int], jobs: int, keep_logs: Path | None) -> Iterator[Report]:
    """Run the seeds, `jobs` at once, and give each report when it is there. Each runs as it would by itself. Whoever leaves
    early takes what is under way with it."""
    with tempfile.TemporaryDirectory(prefix="chaos-reports-") as folder:
        row = _Row(Path(folder), keep_logs)
        pool = ThreadPoolExecutor(max_workers=jobs)
        try:
            for done in as_completed([pool.submit(row.run, seed) for seed in seeds]):
                yield done.result()
        finally:
            row.stop()
            pool.shutdown(cancel_futures=True)


class _Row:
    def __init__(self, folder: Path, keep_logs: Path | None) -> None:
        self._folder = folder
        self._keep_logs = keep_logs
        self._lock = threading.Lock()
        self._stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, seed: int) -> Report:
        file, said = self._folder / f"{seed}.json", self._folder / f"{seed}.txt"
        words = [sys.executable, "-m", "tests.chaos", "--first", str(seed), "--seeds", "1", "--report", str(file)]
        if self._keep_logs is not None:
            words += ["--keep-logs", str(self._keep_logs)]
        with self._lock, said.open("wb") as output:
            if self._stopped:
                return Report(seed, complaints=("it was not run any more",))
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            self._running.add(process)
        why = f"its driver ended with {self._wait(process)} and without a report"
        with self._lock:
            self._running.discard(process)
        return (
            Report.read(file) if file.exists() else Report(seed, complaints=(why, *said.read_text().splitlines()[-20:]))
        )

    def stop(self) -> None:
        """Ask those that run to stop, and wait until they have."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            self._wait(process, CLOSING_SECONDS)

    def _wait(self, process: subprocess.Popen[bytes], seconds: float = LONGEST_SECONDS) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            return process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
