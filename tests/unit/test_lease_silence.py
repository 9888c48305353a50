"""How long a worker may be silent before its guard ends its agents."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import sqlalchemy

from workers import lease_keeper
from workers.lease_keeper import LeaseKeeper


@pytest.fixture
def keeper() -> Iterator[LeaseKeeper]:
    one = LeaseKeeper(
        sqlalchemy.create_engine("postgresql+psycopg://nowhere"),
        lease_seconds=30,
        renew_seconds=3600,  # its thread does nothing while we look
        unreachable_grace_seconds=600,
    )
    yield one
    one.close()


def allowed(keeper: LeaseKeeper, *, seconds_since_renewal: float, turned: float = 0.0) -> float | None:
    """Seconds from now, as `silence_allowed_until` counts them."""
    now = 10_000.0
    keeper._reached_at, keeper._turned_at = now - seconds_since_renewal, now - turned
    with patch.object(lease_keeper.time, "monotonic", return_value=now):
        until = keeper.silence_allowed_until()
    return None if until is None else until - now


def test_agents_end_just_before_their_leases_expire(keeper: LeaseKeeper) -> None:
    assert allowed(keeper, seconds_since_renewal=0) == 29
    assert allowed(keeper, seconds_since_renewal=10) == 19


def test_a_short_lease_leaves_the_guard_a_sixth_of_it(keeper: LeaseKeeper) -> None:
    keeper._lease_seconds = 3
    assert allowed(keeper, seconds_since_renewal=0) == 2.5


def test_while_the_database_is_away_a_worker_that_is_heard_keeps_its_agents_until_the_grace_is_over(
    keeper: LeaseKeeper,
) -> None:
    assert allowed(keeper, seconds_since_renewal=16) == 30
    assert allowed(keeper, seconds_since_renewal=590) == 30
    assert allowed(keeper, seconds_since_renewal=620) == 10


def test_a_keeper_that_hangs_can_not_extend_anything(keeper: LeaseKeeper) -> None:
    assert allowed(keeper, seconds_since_renewal=1, turned=119) is not None
    assert allowed(keeper, seconds_since_renewal=1, turned=121) is None
