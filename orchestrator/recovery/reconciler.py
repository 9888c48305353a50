"""The net: finds what stands still and moves it on. Safe with several dispatchers, for all it does is guarded.

    stands still                                   moved on by
    a message nobody sent, or nobody answered      publishing it (again)
    a retry whose back-off is over                 releasing it, when a place is free
    what waits for a provider that is open         releasing a few of it (`recovery.admission`)
    an attempt whose lease expired                 ending it as `worker_lost`, which retries it at once
    a deadline that passed                         ending the job
    a job that ends with nothing under way         making it final
    a spent budget with something left to start    refusing that
    a group all final and not merged, or a merge   calling the merge
    whose dispatcher died
    a job in which no group is under way           beginning its next group

A healthy fleet costs it one query a tick.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import text

from orchestrator.dispatch.dispatcher import begin_group_if_idle, end_job_if_idle, stop_spending
from orchestrator.dispatch.fleet import Fleet
from orchestrator.dispatch.merging import merge_group
from orchestrator.dispatch.steering import end_job
from orchestrator.errors import DatabaseUnavailable
from orchestrator.fault_points import fault_point
from orchestrator.outcomes import Outcome
from orchestrator.rate_limit import FORGOTTEN_AFTER_SECONDS
from orchestrator.recovery import admission
from orchestrator.retry_policy import Retry, RetryPolicy, Tally, decide
from orchestrator.state import leases, outbox
from orchestrator.state.engine import translated
from orchestrator.state.transitions import ends, jobs
from orchestrator.state.transitions.ends import AttemptEnd

log = logging.getLogger(__name__)

Item = TypeVar("Item")
HELD_BY_ANOTHER: Final = {"55P03", "57014", "40P01"}
"""SQLSTATEs of a lock, and of a statement, that took too long, and of a deadlock: of one row, not of the database."""

_STANDS_STILL = text(
    """
    SELECT extract(epoch FROM clock_timestamp()) AS clock, found.*
    FROM (SELECT) AS always LEFT JOIN (
    SELECT 'message' AS kind, CAST(NULL AS text) AS job_id, CAST(NULL AS integer) AS number
    WHERE EXISTS (SELECT FROM outbox WHERE due_at <= clock_timestamp() - make_interval(secs => :publisher))
    UNION ALL
    SELECT 'lease', NULL, NULL
    WHERE EXISTS (SELECT FROM attempts WHERE status = 'running' AND lease_expires_at < clock_timestamp())
    UNION ALL
    SELECT DISTINCT 'retry', s.job_id, CAST(NULL AS integer) FROM subtasks s JOIN jobs j ON j.id = s.job_id
    WHERE s.status = 'pending' AND s.not_before <= clock_timestamp() AND s.released_at IS NULL AND s.waits_for IS NULL
      AND j.status = 'running' AND j.cancel_requested_at IS NULL AND j.paused_at IS NULL
    UNION ALL
    SELECT 'provider', NULL, NULL
    WHERE EXISTS (SELECT FROM subtasks s LEFT JOIN provider_limits l ON l.account = s.waits_for
                  WHERE s.status = 'pending' AND s.waits_for IS NOT NULL AND s.released_at IS NULL
                    AND (l.closed_until IS NULL OR l.closed_until <= clock_timestamp()))
       OR EXISTS (SELECT FROM provider_limits
                  WHERE greatest(closed_until, throttled_at) < clock_timestamp() - make_interval(secs => :forgotten))
    UNION ALL
    SELECT 'deadline', id, NULL FROM jobs
    WHERE finished_at IS NULL AND cancel_requested_at IS NULL AND deadline_at <= clock_timestamp()
    UNION ALL
    SELECT 'ending', id, NULL FROM jobs WHERE finished_at IS NULL AND cancel_requested_at IS NOT NULL
    UNION ALL
    SELECT 'budget', id, NULL FROM jobs
    WHERE finished_at IS NULL AND cancel_requested_at IS NULL AND spent_usd >= CAST(max_cost_usd AS numeric)
      AND EXISTS (SELECT FROM subtasks s WHERE s.job_id = jobs.id AND s.status = 'pending')
    UNION ALL
    SELECT 'merge', g.job_id, g.number FROM groups g JOIN jobs j ON j.id = g.job_id
    WHERE j.status = 'running' AND j.cancel_requested_at IS NULL
      AND ((g.status = 'merging' AND g.merge_lease_expires_at < clock_timestamp())
           OR (g.status = 'running' AND NOT EXISTS (
                 SELECT FROM subtasks s
                 WHERE s.job_id = g.job_id AND s.group_number = g.number
                   AND (s.finished_at IS NULL OR s.finished_at > clock_timestamp() - make_interval(secs => :grace)))))
    UNION ALL
    SELECT 'group', id, NULL FROM jobs
    WHERE status = 'running' AND cancel_requested_at IS NULL
      AND NOT EXISTS (SELECT FROM groups g WHERE g.job_id = jobs.id AND g.status IN ('running', 'merging'))
    ) AS found ON true
    """
)


@dataclass(frozen=True)
class Finding:
    """Something that stands still. `job_id` and `number` (of a group) are set where they matter."""

    kind: str
    job_id: str
    number: int


class Reconciler:
    """Runs in a thread of each dispatcher, from `start` to `stop`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._merges = ThreadPoolExecutor(max_workers=2, thread_name_prefix="rescued-merge")
        self._merging: set[tuple[str, int]] = set()
        self._owed: list[outbox.Message] = []
        """What the moves of one look have released: committed, and not yet published."""
        self._expire_from = 0.0
        self._clock_is_ahead: float | None = None
        """The database's clock less ours, in seconds; None where it is not known."""
        self._moves: dict[str, Callable[[Finding], None]] = {
            "message": self._publish,
            "lease": self._expire_leases,
            "retry": self._release,
            "provider": self._admit,
            "deadline": self._pass_deadline,
            "ending": self._end,
            "budget": self._stop_spending,
            "merge": self._merge,
            "group": self._begin_group,
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and wait for the merges under way: whoever calls this ends their checks' processes afterwards, and
        a check that was killed is a red one."""
        self._stopped.set()
        if self._merging:
            log.info("Merges that are under way are ended first.", extra={"event": "reconciler.ends_merges"})
        self._merges.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while not self._stopped.wait(self._fleet.settings.reconcile_seconds):
            try:
                self.tick()
            except DatabaseUnavailable as error:
                self._spare_leases()
                log.warning("The reconciler waits: %s", error.message, extra={"event": "reconciler.database_away"})
            except Exception:
                # The net must not tear: what one tick could not mend the next one finds again.
                log.exception("The reconciler met a surprise.", extra={"event": "reconciler.failed"})

    def tick(self) -> list[Finding]:
        """Look once, move on what is found, and say what that was."""
        began = time.monotonic()
        with translated(), self._fleet.engine.connect() as connection:
            after = {
                "grace": self._fleet.settings.body_grace_seconds,
                "publisher": outbox.PUBLISHER_SECONDS,
                "forgotten": FORGOTTEN_AFTER_SECONDS,
            }
            rows = connection.execute(_STANDS_STILL, after).all()
        self._watch_the_clocks(began, float(rows[0].clock))
        findings = [Finding(row.kind, row.job_id or "", row.number or 0) for row in rows if row.kind is not None]
        try:
            self._each(findings, self._move)
        finally:
            # At once, and last: a broker that does not answer takes its time, and nothing else waits for it.
            owed, self._owed = self._owed, []
            self._fleet.publish(owed)
        return findings

    def _move(self, finding: Finding) -> None:
        fault_point("reconciler_after_look_before_move")
        self._moves[finding.kind](finding)

    def _each(self, items: Iterable[Item], move: Callable[[Item], None]) -> None:
        """Move on one after the other, whatever becomes of any: a job whose row somebody holds must not keep others
        waiting. Raises what is no matter of one item: a database that is away; and after the last item a surprise."""
        surprise: Exception | None = None
        for item in items:
            try:
                with translated():
                    move(item)
            except DatabaseUnavailable as error:
                if error.context.get("sqlstate") not in HELD_BY_ANOTHER:
                    raise
                log.warning("%s waits: %s", item, error.message, extra={"event": "reconciler.row_held"})
            except Exception as error:
                surprise = surprise or error
        if surprise is not None:
            raise surprise

    def _watch_the_clocks(self, began: float, clock: float) -> None:
        """Leases are spared where their time may have passed without the workers': after a stillness of the database, and
        when its clock has made a jump (a machine that slept, a clock that was set). Who has just begun knows of neither."""
        patience_seconds = self._fleet.settings.lease_seconds / 2
        before, self._clock_is_ahead = self._clock_is_ahead, clock - began
        if before is None or self._clock_is_ahead - before > patience_seconds:
            self._spare_leases()
        if time.monotonic() - began > patience_seconds:
            self._spare_leases()
            self._clock_is_ahead = None

    def _spare_leases(self) -> None:
        """Workers may be cut off from the database as well: none loses a lease until it had time to renew. A worker that
        stands still before it has noticed that the database is back is ended by its guard a third of a lease later than
        others, hence more than one lease."""
        self._expire_from = time.monotonic() + leases.OUTAGE_LEASES * self._fleet.settings.lease_seconds

    def _publish(self, _finding: Finding) -> None:
        with self._fleet.engine.connect() as connection:
            self._owed += outbox.due(connection)

    def _release(self, finding: Finding) -> None:
        with self._fleet.engine.begin() as connection:
            if jobs.lock_job(connection, finding.job_id) is None:
                return
            messages = jobs.release(connection, finding.job_id)
        self._owed += messages

    def _admit(self, _finding: Finding) -> None:
        for messages in admission.admit(self._fleet):
            self._owed += messages

    def _pass_deadline(self, finding: Finding) -> None:
        end_job(self._fleet, finding.job_id, "deadline")

    def _end(self, finding: Finding) -> None:
        with self._fleet.engine.begin() as connection:
            end_job_if_idle(connection, finding.job_id)

    def _stop_spending(self, finding: Finding) -> None:
        with self._fleet.engine.begin() as connection:
            messages = stop_spending(self._fleet, connection, finding.job_id)
        self._owed += messages

    def _begin_group(self, finding: Finding) -> None:
        """Each transaction that ends a group begins the next one, so this finds nothing, unless somebody's hand, or a
        version that did otherwise, was at the rows."""
        with self._fleet.engine.begin() as connection:
            messages = begin_group_if_idle(self._fleet, connection, finding.job_id)
        self._owed += messages

    def _merge(self, finding: Finding) -> None:
        """A merge may take minutes, so it has a thread of its own, one a group."""
        key = (finding.job_id, finding.number)
        if key in self._merging or self._stopped.is_set():
            return
        self._merging.add(key)
        future = self._merges.submit(merge_group, self._fleet, finding.job_id, finding.number, woken_by="reconciler")
        future.add_done_callback(lambda done: self._note_merge(key, done))

    def _note_merge(self, key: tuple[str, int], done: Future[None]) -> None:
        self._merging.discard(key)
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.warning("A merge waits: %s", error, extra={"event": "reconciler.merge_failed", "job_id": key[0]})

    def _expire_leases(self, _finding: Finding) -> None:
        if time.monotonic() < self._expire_from:
            return
        with self._fleet.engine.connect() as connection:
            lost = leases.expired(connection, self._fleet.settings.lease_seconds)
        self._each(lost, self._lose)

    def _lose(self, lease: leases.ExpiredLease) -> None:
        """Take the attempt from a worker that fell silent; a renewal in the last moment wins."""
        decision = decide(
            RetryPolicy(max_redeliveries=self._fleet.settings.max_redeliveries),
            Outcome.WORKER_LOST,
            Tally(redeliveries=lease.redeliveries + 1),
            jitter=0.0,
        )
        with self._fleet.engine.begin() as connection:
            job = jobs.lock_job(connection, lease.job_id)
            if job is None or not leases.still_expired(connection, lease.lease_token):
                return
            ending = job.steered_to_its_end
            ended = ends.Ended(
                lease.subtask_id,
                lease.lease_token,
                AttemptEnd(
                    Outcome.CANCELLED if ending else Outcome.WORKER_LOST,
                    error=f"worker {lease.worker} was not heard of for a whole lease",
                    cost_unknown=True,
                ),
                retry=decision if isinstance(decision, Retry) and not ending else None,
                redelivery=True,
            )
            ends.end_attempt(connection, lease.job_id, ended)
            messages = jobs.release(connection, lease.job_id)
            end_job_if_idle(connection, lease.job_id)
        self._owed += messages
        log.warning(
            "Worker %s lost subtask %d of job %s.",
            lease.worker,
            lease.subtask_id,
            lease.job_id,
            extra={"event": "lease.expired", "job_id": lease.job_id, "subtask_id": lease.subtask_id},
        )
