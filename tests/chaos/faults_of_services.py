"""Faults that befall Redis, PostgreSQL, the ways to them, and the repository's remote."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import psutil
import psycopg
import redis

from tests.chaos.fault import FAKETIME, Fault, why_no_other_clock
from tests.chaos.world import World
from tests.support.waiting import wait_until

COMMIT_REPLIES: Final = 3


def flush_redis(world: World, job_id: str) -> bool:
    world.services.redis.flush()
    return True


def restart_redis(world: World, job_id: str) -> bool:
    world.services.redis.stop()
    time.sleep(world.rng.uniform(0.5, 6.0))
    world.services.redis.start()
    return True


def redis_away_for_long(world: World, job_id: str) -> bool:
    world.services.redis.stop()
    time.sleep(world.rng.uniform(6.0, 20.0))
    world.services.redis.start()
    return True


def kill_redis(world: World, job_id: str) -> bool:
    world.services.redis.kill()
    time.sleep(world.rng.uniform(0.0, 2.0))
    world.services.redis.start()
    return True


def freeze_redis(world: World, job_id: str) -> bool:
    world.services.redis.freeze()
    time.sleep(world.rng.uniform(0.5, 5.0))
    world.services.redis.thaw()
    return True


def drop_redis_connections(world: World, job_id: str) -> bool:
    with redis.Redis.from_url(world.services.redis.client_url) as client:
        return int(client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")) > 0


def redis_at_maxmemory(world: World, job_id: str) -> bool:
    """Every write is refused, every read answered."""
    with redis.Redis.from_url(world.services.redis.client_url) as client:
        client.config_set("maxmemory", 1)
        time.sleep(world.rng.uniform(0.5, 6.0))
        client.config_set("maxmemory", 0)
    return True


def restart_postgres(world: World, job_id: str) -> bool:
    world.services.postgres.stop()
    time.sleep(world.rng.uniform(0.0, 4.0))
    world.services.postgres.start()
    return True


def crash_postgres(world: World, job_id: str) -> bool:
    """Nothing is flushed: it comes back by its log, without what nobody waited for."""
    server = world.services.postgres
    assert server.process is not None
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait(timeout=60)
    server.start()
    return True


def freeze_postgres(world: World, job_id: str) -> bool:
    """Connections stay open and nothing answers, for less than a lease."""
    processes = [psutil.Process(world.services.postgres.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        with suppress(psutil.Error):
            process.suspend()
    time.sleep(world.rng.uniform(0.2, 2.0))
    for process in processes:
        with suppress(psutil.Error):
            process.resume()
    return True


def drop_database_connections(world: World, job_id: str) -> bool:
    with psycopg.connect(world.services.postgres.url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()
    return len(rows) > 0


def no_connection_is_left(world: World, job_id: str) -> bool:
    """Somebody else takes every connection of the database: those that are free, and the fleet's own."""
    seconds = world.rng.uniform(1.0, 4.0)
    drop_database_connections(world, job_id)
    with ExitStack() as taken:
        try:
            wait_until(lambda: not _take_connection(world, taken), "no connection is left", timeout_seconds=30)
        except AssertionError:
            return False
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not _take_connection(world, taken):
                time.sleep(0.05)
    return True


def _take_connection(world: World, taken: ExitStack) -> bool:
    try:
        taken.enter_context(psycopg.connect(world.services.postgres.url, autocommit=True))
    except psycopg.OperationalError:
        return False
    return True


def hold_the_jobs_row(world: World, job_id: str) -> bool:
    """A forgotten transaction has the job's row locked: every connection of a worker comes to wait for it."""
    with psycopg.connect(world.fleet.settings.database_url) as connection:
        connection.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
        time.sleep(world.rng.uniform(1.0, 12.0))
    return True


def _give_the_database_a_clock(world: World) -> None:
    server = world.services.postgres
    _clock(world).write_text("+0")
    _clock(world).chmod(0o644)
    server.variables |= {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(_clock(world)),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server.restart()


def clock_of_the_database_jumps(world: World, job_id: str) -> bool:
    """An hour ahead, and it stays there, as when the machine has slept: no lease is lost, no agent ended."""
    _clock(world).write_text("+1h")
    return True


def _clock(world: World) -> Path:
    return world.services.postgres.server.folder / "clock"


def lose_commit_replies(world: World, job_id: str) -> bool:
    """Transactions are committed, and the connection is cut before their client hears of it."""
    world.relay.lose_commit_replies(COMMIT_REPLIES)
    with suppress(AssertionError):
        wait_until(lambda: world.relay.lost == COMMIT_REPLIES, "the replies were lost", timeout_seconds=10)
    lost = world.relay.lost
    world.relay.lose_commit_replies(0)
    return lost > 0


def remote_away(world: World, job_id: str) -> bool:
    hidden = world.repository.with_name("hidden")
    world.repository.rename(hidden)
    time.sleep(world.rng.uniform(0.5, 3.0))
    hidden.rename(world.repository)
    return True


FAULTS: Final = (
    Fault(flush_redis),
    Fault(restart_redis),
    Fault(redis_away_for_long),
    Fault(kill_redis),
    Fault(freeze_redis),
    Fault(drop_redis_connections),
    Fault(redis_at_maxmemory),
    Fault(restart_postgres),
    Fault(crash_postgres),
    Fault(freeze_postgres),
    Fault(drop_database_connections),
    Fault(no_connection_is_left),
    Fault(hold_the_jobs_row),
    Fault(clock_of_the_database_jumps, prepare=_give_the_database_a_clock, why_not=why_no_other_clock),
    Fault(lose_commit_replies),
    Fault(remote_away),
)
