"""What Celery alone makes of the same shape: chords of no-ops or of short sleeps, each of whose bodies starts the next one.

The yardstick of the queue: no database, no lease, no outcome, no retry, nothing that survives a crash.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, chord

URL = os.environ.get("RAW_CHORDS_URL", "redis://")
HEADERS, BODIES = "raw.headers", "raw.bodies"
RESULT = "raw.seconds"

app = Celery("raw_chords", broker=URL, backend=URL)
app.conf.task_routes = {"raw.sleep": {"queue": HEADERS}, "raw.next_chord": {"queue": BODIES}}
app.conf.result_expires = 600


@app.task(name="raw.sleep")
def sleep(number: int, seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return number


@app.task(name="raw.next_chord")
def next_chord(_results: Any, chords_left: int, size: int, seconds: float, began: float) -> None:
    """Start the next chord; after the last one store how long they all took, in seconds."""
    if chords_left == 0:
        backend: Any = app.backend
        backend.client.set(RESULT, time.time() - began)
        return
    header = [sleep.s(number, seconds) for number in range(size)]
    chord(header, next_chord.s(chords_left - 1, size, seconds, began)).apply_async()
