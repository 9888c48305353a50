"""One thread a worker keeps all its leases in one statement, and hears of cancellations while it does.

A lease that is gone, a job that is to end and a database that stays away too long each stop the agent at once,
through the stop signal that the attempt waits on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from orchestrator.errors import DatabaseUnavailable
from orchestrator.fault_points import fault_point
from orchestrator.state import leases
from orchestrator.state.engine import translated
from orchestrator.supervisor import StopSignal
from workers.judgement import INTERRUPTED, LEASE_LOST, UNREACHABLE

log = logging.getLogger(__name__)

STUCK_SECONDS: Final = 120.0
"""A renewal that takes so long has passed every time-out of the database's client: it will not come back."""
LONGEST_MARGIN_SECONDS: Final = 1.0
"""What the guard gets to end the agents of a worker that stands still, before their leases expire."""


@dataclass
class _Held:
    """A lease, and the monotonic instant from which on it lasts for its whole length, at least."""

    stop: StopSignal
    kept_at: float


class LeaseKeeper:
    """Renews every lease that is held. `interrupt` stops all agents of this worker, those that come later too."""

    def __init__(
        self, engine: Engine, *, lease_seconds: float, renew_seconds: float, unreachable_grace_seconds: float
    ) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._renew_seconds = min(renew_seconds, lease_seconds / 3)
        self._grace_seconds = unreachable_grace_seconds
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._interrupted = threading.Event()
        self._closed = threading.Event()
        self._reached_at = self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, token: str, *, asked_at: float) -> Iterator[StopSignal]:
        """Keep this lease while the block runs; the signal inside it says when the agent must stop, and why.

        `asked_at` is the monotonic instant before the claim was sent.
        """
        stop = StopSignal()
        with self._lock:
            self._held[token] = _Held(stop, asked_at)
        if self._interrupted.is_set():
            stop.set(INTERRUPTED)
        try:
            yield stop
        finally:
            with self._lock:
                del self._held[token]
            stop.close()

    def confirm(self, token: str) -> None:
        """Before an agent begins: a worker that stood still since its claim may have lost the lease, and its guard found
        nothing to end. Asks the database unless the lease is known to stand; `stop` says what it answered. Raises
        `DatabaseUnavailable`."""
        held = self._snapshot()
        if time.monotonic() - held[token].kept_at > self._lease_seconds / 2:
            self._renew({token: held[token]})

    def interrupt(self) -> None:
        """The worker is asked to stop: end its agents. Their attempts are recorded as `interrupted`."""
        self._interrupted.set()
        for held in self._snapshot().values():
            held.stop.set(INTERRUPTED)

    @property
    def interrupted(self) -> bool:
        """Whether this worker is leaving: it begins nothing any more."""
        return self._interrupted.is_set()

    def silence_allowed_until(self) -> float | None:
        """The monotonic instant at which the guard is to end this worker's agents, unless it hears more until then.

        Just before their leases expire; while the database does not answer, and nobody's leases expire, one lease after
        the worker was last heard, at most until the grace is over. None when this thread hangs: then the last instant
        stands.
        """
        now = time.monotonic()
        if now - self._turned_at > STUCK_SECONDS:
            return None
        if now - self._reached_at <= self._lease_seconds / 2:
            return self._reached_at + self._lease_seconds - min(LONGEST_MARGIN_SECONDS, self._lease_seconds / 6)
        return min(now, self._reached_at + self._grace_seconds) + self._lease_seconds

    def close(self) -> None:
        """Stop renewing; for the end of a process whose attempts are all recorded."""
        self._closed.set()
        self._thread.join(timeout=5)

    def _snapshot(self) -> dict[str, _Held]:
        with self._lock:
            return dict(self._held)

    def _run(self) -> None:
        while not self._closed.wait(self._renew_seconds):
            held = self._snapshot()
            self._turned_at = time.monotonic()
            if not held:
                self._reached_at = self._turned_at
                continue
            fault_point("before_renewal")
            try:
                self._renew(held)
                # The renewal's beginning: by the database's clock the leases last a little longer than by ours.
                self._reached_at = self._turned_at
            except DatabaseUnavailable as error:
                silent_for = time.monotonic() - self._reached_at
                log.warning(
                    "The database is away for %.0f s; %d agents work on.",
                    silent_for,
                    len(held),
                    extra={"event": "lease.database_away", "error": error.message},
                )
                if silent_for > self._grace_seconds:
                    for one in held.values():
                        one.stop.set(UNREACHABLE)
            except Exception:
                # This thread is what keeps paid work alive: it outlives every surprise.
                log.exception("Leases could not be renewed.", extra={"event": "lease.renewal_failed"})

    def _renew(self, held: dict[str, _Held]) -> None:
        began = time.monotonic()
        with translated(), self._engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            renewals = {renewal.token: renewal for renewal in leases.renew(connection, list(held), self._lease_seconds)}
        for token, one in held.items():
            if token not in renewals:
                # Its own thread may have recorded the end a moment ago; then nobody listens to this signal any more.
                one.stop.set(LEASE_LOST)
                continue
            one.kept_at = began
            if renewals[token].ending:
                one.stop.set(renewals[token].ending or "cancelled")
