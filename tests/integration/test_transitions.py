"""Hypothesis drives the real transitions on a real PostgreSQL, in any order that callers can think of.

No process of the fleet runs: the rules below are its dispatchers, workers, reconciler and users, and copies of messages
that come too early, twice or late. After each of them the schema's promises and those of the design hold.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.dispatch.merging import merge_group
from orchestrator.dispatch.steering import cancel_job, pause_job, resume_job, retry_job
from orchestrator.errors import IllegalRequest
from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Account
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.state import leases
from orchestrator.state.tables import GROUP_FINAL, JOB_FINAL, SUBTASK_FINAL
from orchestrator.state.transitions import claims
from orchestrator.state.transitions.claims import Claim, Wanted
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.supervisor import StopSignal
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell
from tests.support.services import PostgresService
from tests.support.waiting import wait_until
from workers.governor import Governor
from workers.recording import Recorder, record

pytestmark = pytest.mark.stack

LEASE_SECONDS: Final = 30.0
ACCOUNT: Final = Account("busy", "-", "default")
JOB_PATHS: Final = {
    ("pending", "running"),
    *(("running", final) for final in JOB_FINAL),
    ("pending", "cancelled"),
    ("pending", "failed"),  # its deadline passed
    ("failed", "running"),
    ("cancelled", "running"),
}
GROUP_PATHS: Final = {
    ("pending", "running"),
    ("running", "merging"),
    ("merging", "completed"),
    ("merging", "failed"),
    *((state, end) for state in ("pending", "running") for end in ("skipped", "cancelled")),
    ("pending", "failed"),
    *((final, state) for final in GROUP_FINAL if final != "completed" for state in ("pending", "running")),
}
SUBTASK_PATHS: Final = {
    ("pending", "in_progress"),
    ("in_progress", "pending"),
    *(("in_progress", final) for final in ("completed", "failed", "timeout", "cancelled")),
    ("pending", "skipped"),
    *(("pending", final) for final in ("failed", "timeout")),  # the budget was spent before its retry
    ("pending", "cancelled"),
    *((final, "pending") for final in SUBTASK_FINAL if final != "completed"),
    *((final, "skipped") for final in SUBTASK_FINAL if final != "completed"),  # reopened, and its dependency is gone
}
"""Each as (before, after) one call; a merge runs from `running` to its end within one."""
WITHIN_ONE_CALL: Final = {("running", "completed"), ("running", "failed")}

Rows = Mapping[Any, Mapping[str, Any]]


class Callers(RuleBasedStateMachine):
    """Two groups and a lonely third, whose subtask depends on one of the first."""

    fleet: ClassVar[TestFleet]

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Claim] = []
        self.seen: dict[str, Rows] = {}
        self.last_event = 0
        self.reconciler = Reconciler(self.fleet.client)
        self.reconciler.tick()
        self.reconciler._expire_from = 0.0  # as one that has looked on for some time
        self.recorder = Recorder(self.fleet.client)
        self.governor = Governor(self.fleet.client)

    @initialize(
        places=st.integers(1, 3),
        on_failure=st.sampled_from(["stop", "continue", {"quorum": 1}]),
        max_retries=st.integers(0, 1),
        budget=st.one_of(st.none(), st.sampled_from([0.3, 0.6, 1.0])),
        started=st.booleans(),
    )
    def submit(self, places: int, on_failure: Any, max_retries: int, budget: float | None, started: bool) -> None:
        plan = {
            "title": "Any order",
            "max_parallel_agents": places,
            "max_retries": max_retries,
            "on_failure": on_failure,
            "deadline": "1h",
            "max_cost_usd": budget,
            "subtasks": [
                *(shell(n, "true", group=1) for n in (1, 2, 3)),
                *(shell(n, "true", group=2) for n in (4, 5)),
                shell(6, "true", group=3, depends_on=[1]),
            ],
        }
        self.places = places
        self.job_id = self.fleet.submit(plan)
        if started:
            start_job(self.fleet.client, self.job_id)
        self.look()

    @rule()
    def a_dispatcher_starts_the_job(self) -> None:
        start_job(self.fleet.client, self.job_id)

    @rule(subtask_ids=st.lists(st.integers(1, 6), min_size=1, max_size=4))
    def a_worker_gets_messages(self, subtask_ids: list[int]) -> None:
        """Several at once, copies among them."""
        wanted = [Wanted(subtask_id, None, secrets.token_hex(8)) for subtask_id in subtask_ids]
        given = claims.claim(
            self.fleet.client.engine, self.job_id, wanted, worker="worker@test", lease_seconds=LEASE_SECONDS
        )
        self.claims.extend(claim for claim in given if claim is not None)

    @precondition(lambda self: self.claims)
    @rule(
        which=st.integers(0, 7),
        outcome=st.one_of(st.just(Outcome.COMPLETED), st.sampled_from(sorted(Outcome))),
        cost_usd=st.sampled_from([None, 0.0, 0.1, 0.3]),
    )
    def a_worker_records_an_end(self, which: int, outcome: Outcome, cost_usd: float | None) -> None:
        """Of any claim that there was lately: also twice, and after its lease was lost."""
        claim = self.claims[-1 - which % len(self.claims)]
        with StopSignal() as stop:
            end = AttemptEnd(outcome, error=None if outcome == "completed" else "why", cost_usd=cost_usd)
            record(self.recorder, claim, end, stop)

    @rule(subtask_id=st.integers(1, 6))
    def a_message_comes_for_an_agent_with_a_provider(self, subtask_id: int) -> None:
        """Nothing starts against the account's limit, and what is refused waits without a place."""
        (before,) = self.fleet.rows(
            "SELECT (SELECT count(*) FROM attempts WHERE account = :a AND status = 'running') AS running,"
            " (SELECT allowed FROM provider_limits WHERE account = :a) AS allowed,"
            " (SELECT closed_until > clock_timestamp() FROM provider_limits WHERE account = :a) AS closed",
            a=ACCOUNT.name,
        )
        wanted = Wanted(subtask_id, None, secrets.token_hex(8), account=ACCOUNT.name)
        (claim,) = claims.claim(
            self.fleet.client.engine, self.job_id, [wanted], worker="worker@test", lease_seconds=LEASE_SECONDS
        )
        has_room = not before["closed"] and (before["allowed"] is None or before["running"] < before["allowed"])
        assert claim is None or has_room
        if claim is not None:
            self.claims.append(claim)
            return
        self.governor._hold(self.job_id, subtask_id, ACCOUNT)
        row = self.fleet.subtasks(self.job_id)[subtask_id]
        assert has_room or row["released_at"] is None or row["status"] != "pending"

    @precondition(lambda self: self.claims)
    @rule(which=st.integers(0, 7), outcome=st.sampled_from([Outcome.RATE_LIMITED, Outcome.COMPLETED]))
    def a_provider_has_its_word(self, which: int, outcome: Outcome) -> None:
        claim = self.claims[-1 - which % len(self.claims)]
        error = None if outcome == "completed" else "429"
        end = AttemptEnd(outcome, error=error, retry_after_seconds=60.0, agent_started_at=datetime.now(UTC))
        with StopSignal() as stop:
            record(self.recorder, claim, self.governor.heard(claim, end), stop)

    @rule()
    def the_provider_opens(self) -> None:
        self.execute("UPDATE provider_limits SET closed_until = clock_timestamp()")

    @precondition(lambda self: self.claims)
    @rule(which=st.integers(0, 7))
    def a_worker_falls_silent(self, which: int) -> None:
        claim = self.claims[-1 - which % len(self.claims)]
        self.execute(
            "UPDATE attempts SET lease_expires_at = clock_timestamp() - interval '1 s'"
            " WHERE lease_token = :token AND status = 'running'",
            token=claim.lease_token,
        )

    @precondition(lambda self: self.claims)
    @rule()
    def a_worker_renews(self) -> None:
        with self.fleet.client.engine.begin() as connection:
            leases.renew(connection, [claim.lease_token for claim in self.claims], LEASE_SECONDS)

    @rule(number=st.integers(1, 3))
    def a_chord_calls_back(self, number: int) -> None:
        merge_group(self.fleet.client, self.job_id, number, woken_by="callback")

    @rule()
    def the_reconciler_looks(self) -> None:
        self.execute("UPDATE subtasks SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")
        self.reconciler.tick()
        wait_until(lambda: not self.reconciler._merging, "rescued merges have ended")

    @rule()
    def somebody_cancels(self) -> None:
        cancel_job(self.fleet.client, self.job_id)

    @precondition(lambda self: len(self.claims) > 2)
    @rule()
    def the_deadline_passes(self) -> None:
        self.execute(
            "UPDATE jobs SET deadline_at = clock_timestamp() WHERE id = :id AND deadline_at > clock_timestamp()",
            id=self.job_id,
        )

    @rule()
    def somebody_pauses(self) -> None:
        with suppress(IllegalRequest):
            pause_job(self.fleet.client, self.job_id)

    @rule()
    def somebody_resumes(self) -> None:
        with suppress(IllegalRequest):
            resume_job(self.fleet.client, self.job_id)

    @precondition(lambda self: self.seen["jobs"][self.job_id]["finished_at"] is not None)
    @rule()
    def somebody_retries(self) -> None:
        with suppress(IllegalRequest):  # its budget is spent
            retry_job(self.fleet.client, self.job_id)

    @precondition(lambda self: self.seen["jobs"][self.job_id]["finished_at"] is not None)
    @rule(more=st.sampled_from([0.05, 0.5]))
    def somebody_retries_with_a_higher_budget(self, more: float) -> None:
        retry_job(self.fleet.client, self.job_id, max_cost_usd=self.paid() + more)

    @invariant()
    def promises_hold(self) -> None:
        before = dict(self.seen)
        if not before:
            return
        events = self.look()
        job = self.seen["jobs"][self.job_id]
        self.paths_are_legal(before)
        self.changes_have_events(before, events)
        open_subtasks = [row for row in self.seen["subtasks"].values() if row["finished_at"] is None]
        open_groups = [row for row in self.seen["groups"].values() if row["finished_at"] is None]
        in_flight = [row for row in open_subtasks if row["released_at"] is not None]
        running = [row for row in self.seen["attempts"].values() if row["status"] == "running"]
        assert len(in_flight) <= self.places
        assert all(row["waits_for"] is None or row["status"] == "pending" for row in open_subtasks)
        assert len(running) == sum(row["status"] == "in_progress" for row in open_subtasks)
        assert (job["finished_at"] is not None) == (not open_subtasks and not open_groups)
        assert (job["finished_at"] is not None) == (job["status"] in JOB_FINAL)
        if job["finished_at"] is not None:
            assert not self.fleet.rows("SELECT 1 FROM outbox WHERE job_id = :id", id=self.job_id)
        if job["paused_at"] is not None:
            assert all(row["status"] == "in_progress" for row in in_flight), "nothing may start while it is paused"
        if job["max_cost_usd"] is not None:
            self.budget_is_kept(before, job, in_flight)
        for attempt_id, row in before["attempts"].items():
            if row["status"] != "running":
                assert self.seen["attempts"][attempt_id] == row, "what was recorded never changes"

    def budget_is_kept(
        self, before: dict[str, Rows], job: Mapping[str, Any], in_flight: list[Mapping[str, Any]]
    ) -> None:
        assert float(job["spent_usd"]) == self.paid()
        if float(job["spent_usd"]) < job["max_cost_usd"]:
            return
        assert self.seen["attempts"].keys() == before["attempts"].keys(), "no agent starts once the budget is spent"
        assert all(row["status"] == "in_progress" for row in in_flight)
        pending = [row for row in self.seen["subtasks"].values() if row["status"] == "pending"]
        if job["status"] == "running" and job["cancel_requested_at"] is None:
            assert not pending, "what has not started never will"
        assert job["status"] != "completed" or job["reason"] in (None, "quorum")

    def paid(self) -> float:
        (row,) = self.fleet.rows(
            "SELECT coalesce(sum(CAST(cost_usd AS numeric)), 0) AS usd FROM attempts WHERE job_id = :id", id=self.job_id
        )
        return float(row["usd"])

    def paths_are_legal(self, before: dict[str, Rows]) -> None:
        for table, paths in (("jobs", JOB_PATHS), ("groups", GROUP_PATHS), ("subtasks", SUBTASK_PATHS)):
            for key, row in self.seen[table].items():
                path = (before[table][key]["status"], row["status"])
                allowed = paths | (WITHIN_ONE_CALL if table == "groups" else set())
                assert path[0] == path[1] or path in allowed, f"{table} {key}: {path}"

    def changes_have_events(self, before: dict[str, Rows], events: list[dict[str, Any]]) -> None:
        told = {("jobs", self.job_id) for event in events if event["name"].startswith("job.")}
        for event in events:
            if event["name"].startswith(("group.", "groups.")):
                told |= {("groups", n) for n in [event["group_number"], *event["data"].get("group_numbers", [])]}
            told |= {("subtasks", n) for n in [event["subtask_id"], *event["data"].get("subtask_ids", [])]}
        for table in ("jobs", "groups", "subtasks"):
            for key, row in self.seen[table].items():
                changed = before[table][key]["status"] != row["status"]
                assert not changed or (table, key) in told, f"no event tells that {table} {key} is {row['status']} now"

    def look(self) -> list[dict[str, Any]]:
        """Read everything; the events since the last look."""
        key = {"jobs": "id", "groups": "number", "subtasks": "subtask_id", "attempts": "id"}
        for table, name in key.items():
            condition = "id" if table == "jobs" else "job_id"
            rows = self.fleet.rows(f"SELECT * FROM {table} WHERE {condition} = :id", id=self.job_id)
            self.seen[table] = {row[name]: row for row in rows}
        events = self.fleet.rows(
            "SELECT * FROM events WHERE job_id = :id AND id > :last ORDER BY id", id=self.job_id, last=self.last_event
        )
        self.last_event = events[-1]["id"] if events else self.last_event
        return events

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.fleet.client.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def teardown(self) -> None:
        self.reconciler.stop()
        if self.seen:
            self.execute("DELETE FROM jobs WHERE id = :id", id=self.job_id)
            self.execute("DELETE FROM provider_limits")
        self.governor.close()


@pytest.mark.timeout(600)  # a failing order is made shorter before it is shown
def test_no_order_of_calls_breaks_a_promise(
    database: str, broker: str, postgres: PostgresService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Callers.fleet = open_fleet(
        database, broker, tmp_path_factory.mktemp("fleet"), lease_seconds=2.0, retry_initial_seconds=0.0
    )
    up = "SELECT 1 WHERE pg_postmaster_start_time() < clock_timestamp() - interval '2 s'"
    wait_until(lambda: Callers.fleet.rows(up), "leases may expire")
    try:
        run_state_machine_as_test(
            Callers,
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Callers.fleet.close()
