"""What leases cost, and how soon a lost one is given to another worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import Engine, event, text

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.recovery import reconciler as reconciler_module
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.state import outbox
from orchestrator.state.leases import OUTAGE_LEASES
from orchestrator.state.transitions import claims
from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import shell
from tests.support.waiting import wait_until
from workers.judgement import LEASE_LOST
from workers.lease_keeper import LeaseKeeper

pytestmark = pytest.mark.stack

AGENTS = 40


def test_a_renewal_is_one_statement_whatever_the_number_of_agents(fleet: TestFleet) -> None:
    """All forty leases are longer after one UPDATE."""
    tokens = claimed(fleet, AGENTS)
    said = statements(fleet.client.engine)
    keeper = LeaseKeeper(fleet.client.engine, lease_seconds=60.0, renew_seconds=0.05, unreachable_grace_seconds=60.0)
    with ExitStack() as held:
        stops = [held.enter_context(keeper.holding(token, asked_at=time.monotonic())) for token in tokens]
        said.clear()  # a turn that has begun with fewer of them counts as well as any other
        longer = "SELECT 1 FROM attempts WHERE lease_expires_at > clock_timestamp() + interval '30 s'"
        wait_until(lambda: len(fleet.rows(longer)) == AGENTS, "all leases are renewed")
        assert [stop.reason for stop in stops] == [None] * AGENTS
        keeper.close()
    renewals = [statement for statement in said if "UPDATE attempts" in statement]
    turns = [statement for statement in said if "synchronous_commit" in statement]
    assert 1 <= len(renewals) == len(turns)


def test_before_an_agent_begins_an_old_lease_is_asked_for_and_a_young_one_is_not(fleet: TestFleet) -> None:
    """A worker that stood still between claim and agent must not begin what another has in hand."""
    kept, lost = claimed(fleet, 2)
    with fleet.client.engine.begin() as connection:
        connection.execute(
            text("UPDATE attempts SET lease_token = 'another' WHERE lease_token = :lost"), {"lost": lost}
        )
    said = statements(fleet.client.engine)
    keeper = LeaseKeeper(fleet.client.engine, lease_seconds=60.0, renew_seconds=20.0, unreachable_grace_seconds=60.0)
    now = time.monotonic()
    with keeper.holding(kept, asked_at=now) as stop:
        keeper.confirm(kept)
        assert (stop.reason, said) == (None, [])
    with keeper.holding(kept, asked_at=now - 40) as stop:
        keeper.confirm(kept)
        assert stop.reason is None
        assert len(said) == 2
        keeper.confirm(kept)  # by now it is known to stand
        assert len(said) == 2
    with keeper.holding(lost, asked_at=now - 40) as stop:
        keeper.confirm(lost)
        assert stop.reason == LEASE_LOST
    keeper.close()


def test_a_lost_workers_agents_are_at_work_elsewhere_within_five_seconds_of_its_lease(
    fleet: TestFleet, tmp_path: Path
) -> None:
    """By the database's clock alone: from the last instant at which the lease was good to the next attempt."""
    begun = tmp_path / "begun"
    fleet.start_dispatcher()
    fleet.start_worker("doomed")
    command = f"if [ $ORCHESTRATOR_ATTEMPT_NUMBER = 1 ]; then echo x >> {begun}; sleep 600; fi"
    job_id = fleet.submit({"title": "Lost", "subtasks": [shell(n, command) for n in (1, 2, 3)]})
    wait_until(lambda: begun.exists() and len(begun.read_text().split()) == 3, "all agents run")
    fleet.start_worker("heir")
    wait_until(lambda: "heir@test ready" in (tmp_path / "heir.log").read_text(), "the heir is ready")
    fleet.stop("doomed", signal.SIGKILL)
    assert fleet.wait_for_end(job_id)["status"] == "completed"
    late = fleet.rows(
        "SELECT next.subtask_id, next.started_at - lost.lease_expires_at AS after"
        " FROM attempts lost JOIN attempts next USING (job_id, subtask_id)"
        " WHERE job_id = :id AND lost.number = 1 AND next.number = 2 AND lost.status = 'worker_lost'",
        id=job_id,
    )
    assert sorted(row["subtask_id"] for row in late) == [1, 2, 3]
    assert all(row["after"].total_seconds() <= 5 for row in late), late


def test_while_the_database_stood_still_no_lease_was_lost(fleet: TestFleet) -> None:
    """Its clock went on, and workers could not renew: whoever has waited for it as well gives them the time."""
    claimed(fleet, 1)
    waited, other = settled(fleet), settled(fleet)
    with fleet.client.engine.begin() as connection, ThreadPoolExecutor() as pool:
        connection.execute(text(EXPIRE))
        connection.execute(text("LOCK TABLE attempts"))
        look = pool.submit(waited.tick)
        time.sleep(fleet.settings.lease_seconds * 0.6)
        connection.commit()
        assert "lease" in {finding.kind for finding in look.result()}
    assert fleet.rows(STATES) == [{"status": "running"}]
    other.tick()
    assert fleet.rows(STATES) == [{"status": "worker_lost"}]
    for one in (waited, other):
        one.stop()


def test_a_dispatcher_that_has_just_started_takes_no_lease_away(fleet: TestFleet) -> None:
    """It can't know whether the database was in anybody's reach a moment ago: workers get the time to renew."""
    claimed(fleet, 1)
    known, fresh = settled(fleet), Reconciler(fleet.client)
    with fleet.client.engine.begin() as connection:
        connection.execute(text(EXPIRE))
    assert "lease" in {finding.kind for finding in fresh.tick()}
    assert fleet.rows(STATES) == [{"status": "running"}]
    wait_until(lambda: fresh.tick() and fleet.rows(STATES) == [{"status": "worker_lost"}], "the lease is taken away")
    for one in (known, fresh):
        one.stop()


def test_after_a_sleep_of_the_machine_workers_get_the_time_to_renew(fleet: TestFleet) -> None:
    """While a machine sleeps monotonic clocks stand, and its wall clock, the database's, has gone on when it wakes."""
    claimed(fleet, 1)
    reconciler = settled(fleet)
    fell_asleep = time.monotonic()
    expired = "SELECT 1 FROM attempts WHERE lease_expires_at < clock_timestamp()"
    with patch.object(reconciler_module.time, "monotonic", return_value=fell_asleep):
        reconciler.tick()
        wait_until_by_wall_clock(lambda: fleet.rows(expired))
        assert "lease" in {finding.kind for finding in reconciler.tick()}
    assert fleet.rows(STATES) == [{"status": "running"}]
    wait_until(lambda: reconciler.tick() and fleet.rows(STATES) == [{"status": "worker_lost"}], "it is taken away")
    reconciler.stop()


def test_a_job_whose_row_is_held_keeps_no_other_waiting(database: str, broker: str, tmp_path: Path) -> None:
    """By a transaction that somebody has forgotten: the leases of other jobs are looked after all the same."""
    fleet = open_fleet(f"{database}&options=-c%20lock_timeout%3D200ms", broker, tmp_path)
    try:
        held, free = claimed(fleet, 1, "held"), claimed(fleet, 1, "free")
        reconciler = settled(fleet)
        with fleet.client.engine.begin() as connection:
            connection.execute(text(EXPIRE))
        with fleet.client.engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT FROM jobs JOIN attempts a ON a.job_id = jobs.id WHERE a.lease_token = :token FOR UPDATE OF jobs"
                ),
                {"token": held[0]},
            )
            reconciler.tick()
            lost = "SELECT lease_token FROM attempts WHERE status = 'worker_lost'"
            assert fleet.rows(lost) == [{"lease_token": free[0]}]
        reconciler.tick()
        assert len(fleet.rows(lost)) == 2
        reconciler.stop()
    finally:
        fleet.close()


def test_the_net_publishes_once_a_look_and_after_everything_else(
    fleet: TestFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that stands still takes ten seconds to say so: no deadline waits for that, nor for each of many leases."""
    claimed(fleet, 3)
    late = fleet.submit({"title": "Late", "deadline": "1h", "subtasks": [shell(1, "true")]})
    reconciler = settled(fleet)
    with fleet.client.engine.begin() as connection:
        connection.execute(text(EXPIRE))
        for change in (
            "outbox SET due_at = clock_timestamp() - interval '1 h' WHERE job_id",
            "jobs SET deadline_at = clock_timestamp() WHERE id",
        ):
            connection.execute(text(f"UPDATE {change} = :id"), {"id": late})
    published: list[tuple[int, str]] = []
    publish = outbox.publish

    def watched(*args: Any, **kwargs: Any) -> int:
        published.append((len(args[2]), fleet.job(late)["status"]))
        return publish(*args, **kwargs)

    monkeypatch.setattr(outbox, "publish", watched)
    reconciler.tick()
    assert fleet.rows(STATES) == [{"status": "worker_lost"}] * 3
    assert published == [(4, "failed")], "three retries, and the start of the job that ended meanwhile"
    reconciler.stop()


def test_leases_are_renewed_while_every_other_connection_waits_for_a_row(fleet: TestFleet, tmp_path: Path) -> None:
    """Thirty agents end at once, and somebody holds their job's row: the one that works on keeps its lease."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    fleet.start_dispatcher()
    fleet.start_worker(slots=31, ORCHESTRATOR_SLOTS="31")
    fails = f"echo x >> {begun}; until test -e {gate}; do sleep 0.1; done; exit 1"
    subtasks = [shell(1, f"echo x >> {begun}; sleep 600"), *(shell(n, fails) for n in range(2, 32))]
    plan = {"title": "Row", "max_parallel_agents": 31, "max_retries": 0, "subtasks": subtasks}
    job_id = fleet.submit(plan)
    wait_until(lambda: begun.exists() and len(begun.read_text().split()) == 31, "all agents run", timeout_seconds=60)
    with psycopg.connect(fleet.settings.database_url) as connection:
        connection.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
        gate.touch()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: fleet.rows(waiting)[0]["count"] >= 26, "every connection of the pool waits")
        lease = "SELECT lease_expires_at FROM attempts WHERE job_id = :id AND subtask_id = 1"
        before = fleet.rows(lease, id=job_id)
        wait_until(lambda: fleet.rows(lease, id=job_id) != before, "the lease is renewed", timeout_seconds=6)


STATES: Final = "SELECT status FROM attempts"
EXPIRE: Final = "UPDATE attempts SET lease_expires_at = clock_timestamp() - interval '1 s'"


def settled(fleet: TestFleet) -> Reconciler:
    """A reconciler that has looked on for long enough to take leases away, on a server that is up for long enough."""
    up = f"SELECT 1 WHERE pg_postmaster_start_time() < clock_timestamp() - interval '{OUTAGE_LEASES * fleet.settings.lease_seconds} s'"
    wait_until(lambda: fleet.rows(up), "the server's own start is no reason any more")
    one = Reconciler(fleet.client)
    one.tick()
    one._expire_from = 0.0
    return one


def wait_until_by_wall_clock(is_so: Callable[[], object]) -> None:
    """`wait_until` where the monotonic clock stands."""
    while not is_so():
        time.sleep(0.05)


def claimed(fleet: TestFleet, agents: int, prefix: str = "token") -> list[str]:
    """The tokens of that many attempts that run."""
    subtask_ids = range(1, agents + 1)
    plan = {"title": "Many", "max_parallel_agents": agents, "subtasks": [shell(n, "true") for n in subtask_ids]}
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    wanted = [claims.Wanted(subtask_id, None, f"{prefix}-{subtask_id}") for subtask_id in subtask_ids]
    assert None not in claims.claim(fleet.client.engine, job_id, wanted, worker="w", lease_seconds=3.0)
    return [one.lease_token for one in wanted]


def statements(engine: Engine) -> list[str]:
    """What is said to the database from now on."""
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_: said.append(statement))
    return said
