"""What the rows of attempts say of sessions and sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from orchestrator.ledger import Before, Figures, Spending
from orchestrator.state.engine import create_engine
from orchestrator.state.spending import reported_before, spending_by_subtask
from tests.support import job_rows

pytestmark = pytest.mark.stack

JOB = "aaaaaaaaaaaa"
TEN, TWENTY = {"input_tokens": 10}, {"input_tokens": 20}


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    with engine.begin() as connection:
        job_rows.insert_job(connection, JOB)
        job_rows.insert_group(connection, JOB, 1, {1: "in_progress", 2: "in_progress", 3: "pending"})
    yield engine
    engine.dispose()


def store(engine: Engine, subtask_id: int, number: int, status: str = "failed", **values: Any) -> None:
    finished = {} if status == "running" else {"finished_at": "now"}
    with engine.begin() as connection:
        job_rows.insert_attempt(connection, JOB, subtask_id, number, status=status, **finished, **values)


def before(engine: Engine, session_id: str = "s") -> Before:
    with engine.connect() as connection:
        return reported_before(connection, JOB, 1, session_id)


def test_a_session_that_nobody_has_told_of_began_at_nothing(engine: Engine) -> None:
    store(engine, 1, 1, session_id="another", reported_usage=TEN, reported_cost_usd=1.0)
    store(engine, 2, 1, session_id="s", reported_usage=TEN, reported_cost_usd=1.0)
    store(engine, 1, 2, session_id="s")
    assert before(engine) == Before()


def test_the_latest_that_has_told_counts_and_each_figure_by_itself(engine: Engine) -> None:
    store(engine, 1, 1, session_id="s", reported_usage=TEN, reported_cost_usd=1.0)
    store(engine, 1, 2, session_id="s", reported_usage=TWENTY, usage=TEN, cost_usd=0.4, cost_estimated=True)
    store(engine, 1, 3, "worker_lost", session_id="s", cost_unknown=True)
    assert before(engine) == Before(Figures(TWENTY, 1.0), estimated_usd=0.4)
    store(engine, 1, 4, session_id="s", reported_usage=TWENTY, reported_cost_usd=1.5)
    assert before(engine) == Before(Figures(TWENTY, 1.5), estimated_usd=0.0)


def test_sums_are_made_a_subtask_and_say_what_they_lack(engine: Engine) -> None:
    store(engine, 1, 1, usage=TEN, cost_usd=0.1)
    store(engine, 1, 2, usage=TWENTY, cost_usd=0.2, cost_estimated=True)
    store(engine, 2, 1, "worker_lost", usage={}, cost_unknown=True)
    with engine.connect() as connection:
        assert spending_by_subtask(connection, JOB) == {
            1: Spending({"input_tokens": 30}, 0.3, estimated=True),
            2: Spending(cost_incomplete=True, tokens_incomplete=True),
        }
