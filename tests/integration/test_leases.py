"""What leases cost, and how soon a lost one is given to another worker."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import event

from orchestrator.dispatch.dispatcher import start_job
from orchestrator.state.transitions import subtasks
from tests.support.fleet import TestFleet
from tests.support.repositories import shell
from tests.support.waiting import wait_until
from workers.lease_keeper import LeaseKeeper

pytestmark = pytest.mark.stack

AGENTS = 40


def test_a_renewal_is_one_statement_whatever_the_number_of_agents(fleet: TestFleet) -> None:
    """All forty leases are longer after one UPDATE."""
    engine = fleet.client.engine
    plan = {
        "title": "Many",
        "max_parallel_agents": AGENTS,
        "subtasks": [shell(n, "true") for n in range(1, AGENTS + 1)],
    }
    job_id = fleet.submit(plan)
    start_job(fleet.client, job_id)
    tokens = [f"token-{number}" for number in range(AGENTS)]
    wanted = [subtasks.Wanted(subtask_id, None, token) for subtask_id, token in enumerate(tokens, start=1)]
    assert None not in subtasks.claim(engine, job_id, wanted, worker="w", lease_seconds=3.0)
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_: said.append(statement))
    keeper = LeaseKeeper(engine, lease_seconds=60.0, renew_seconds=0.05, unreachable_grace_seconds=60.0)
    with ExitStack() as held:
        stops = [held.enter_context(keeper.holding(token)) for token in tokens]
        said.clear()  # a turn that has begun with fewer of them counts as well as any other
        longer = "SELECT 1 FROM attempts WHERE lease_expires_at > clock_timestamp() + interval '30 s'"
        wait_until(lambda: len(fleet.rows(longer)) == AGENTS, "all leases are renewed")
        assert [stop.reason for stop in stops] == [None] * AGENTS
        keeper.close()
    renewals = [statement for statement in said if "UPDATE attempts" in statement]
    turns = [statement for statement in said if "synchronous_commit" in statement]
    assert 1 <= len(renewals) == len(turns)


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
