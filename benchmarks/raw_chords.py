"""What Celery alone makes of the same shape: chords of no-ops, each of whose bodies starts the next one.

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
app.conf.task_routes = {"raw.no_op": {"queue": HEADERS}, "raw.next_chord": {"queue": BODIES}}
app.conf.result_expires = 600


@app.task(name="raw.no_op")
def no_op(number: int) -> int:
    return number


@app.task(name="raw.next_chord")
def next_chord(_results: Any, chords_left: int, size: int, began: float) -> None:
    """Start the next chord; after the last one store how long they all took, in seconds."""
    if chords_left == 0:
        backend: Any = app.backend
        backend.client.set(RESULT, time.time() - began)
        return
    header = [no_op.s(number) for number in range(size)]
    chord(header, next_chord.s(chords_left - 1, size, began)).apply_async()
