"""Waiting for conditions, never for time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], description: str, *, timeout_seconds: float = 30.0) -> T:
    """Call `predicate` until it gives something true, and return that; fail with `description` after the time-out."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s in vain until {description}; last seen: {value!r}")
        time.sleep(0.02)
