"""The faults. Each happens once, repairs itself, and says whether it met anything to break."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psutil
import psycopg
import redis

from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.process_tree import HELPERS
from orchestrator.task_names import AGENTS_QUEUE, CONTROL_QUEUE, MERGE_GROUP, RUN_AGENT, START_JOB
from tests.chaos.world import DISPATCHERS, GROUPS, SIZE, WORKERS, World
from tests.support.waiting import wait_until

Fault = Callable[[World, str], bool]


def kill_worker(world: World, job_id: str) -> bool:
    """kill -9 of a worker with agents at work: they end, their leases expire, and the work goes on elsewhere."""
    name = _busy_worker(world, job_id)
    return name is not None and _end(world, name, signal.SIGKILL)


def kill_dispatcher(world: World, job_id: str) -> bool:
    return _end(world, world.rng.choice(DISPATCHERS), signal.SIGKILL)


def stop_worker(world: World, job_id: str) -> bool:
    name = _busy_worker(world, job_id)
    return name is not None and _end(world, name, signal.SIGTERM)


def stop_dispatcher(world: World, job_id: str) -> bool:
    return _end(world, world.rng.choice(DISPATCHERS), signal.SIGTERM)


def freeze_worker_past_its_lease(world: World, job_id: str) -> bool:
    name = _busy_worker(world, job_id)
    if name is None:
        return False
    world.signal(name, signal.SIGSTOP)
    time.sleep(world.fleet.settings.lease_seconds + world.rng.uniform(0.5, 2.0))
    world.signal(name, signal.SIGCONT)
    return True


def kill_agent(world: World, job_id: str) -> bool:
    """kill -9 of the next agent that is seen; its attempt fails and is tried again."""
    try:
        return wait_until(lambda: _kill_one_agent(world), "an agent runs", timeout_seconds=10)
    except AssertionError:
        return False


def _kill_one_agent(world: World) -> bool:
    workers = [world.fleet.processes[name] for name in WORKERS]
    for worker in workers:
        with suppress(psutil.Error, OSError):
            for child in psutil.Process(worker.pid).children():
                cookie = child.environ().get(COOKIE_VARIABLE, HELPERS)
                if not cookie.endswith(HELPERS):  # git is the worker's own
                    child.kill()
                    return True
    return False


def flush_redis(world: World, job_id: str) -> bool:
    world.services.redis.flush()
    return True


def restart_redis(world: World, job_id: str) -> bool:
    world.services.redis.stop()
    time.sleep(world.rng.uniform(0.5, 6.0))
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


def restart_postgres(world: World, job_id: str) -> bool:
    world.services.postgres.stop()
    time.sleep(world.rng.uniform(0.0, 4.0))
    world.services.postgres.start()
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


def copy_messages(world: World, job_id: str) -> bool:
    """Every message once more, out of order."""
    app = world.fleet.client.app
    copies = [(RUN_AGENT, (job_id, n), AGENTS_QUEUE) for n in range(1, GROUPS * SIZE + 1)]
    copies += [(MERGE_GROUP, (job_id, n), CONTROL_QUEUE) for n in range(1, GROUPS + 1)]
    copies += [(START_JOB, (job_id,), CONTROL_QUEUE)]
    world.rng.shuffle(copies)
    for name, args, queue in copies:
        app.send_task(name, args=args, queue=queue, ignore_result=True)
    return True


def remote_away(world: World, job_id: str) -> bool:
    hidden = world.repository.with_name("hidden")
    world.repository.rename(hidden)
    time.sleep(world.rng.uniform(0.5, 3.0))
    hidden.rename(world.repository)
    return True


def _busy_worker(world: World, job_id: str) -> str | None:
    """The next worker that is seen with an agent at work; None when the job is over before there is one."""
    busy: list[str] = []

    def seen() -> bool:
        rows = world.fleet.rows("SELECT worker FROM attempts WHERE job_id = :id AND status = 'running'", id=job_id)
        busy.extend(row["worker"].split("@")[0] for row in rows)
        return bool(busy) or world.fleet.job(job_id)["finished_at"] is not None

    wait_until(seen, "a worker is busy or the job is over")
    return world.rng.choice(busy) if busy else None


def _end(world: World, name: str, number: int) -> bool:
    world.signal(name, number)
    time.sleep(world.rng.uniform(0.0, 1.5))
    world.fleet.processes[name].wait(timeout=60)
    world.revive(name)
    return True


FAULTS: Final[tuple[Fault, ...]] = (
    kill_worker,
    kill_dispatcher,
    stop_worker,
    stop_dispatcher,
    freeze_worker_past_its_lease,
    kill_agent,
    flush_redis,
    restart_redis,
    kill_redis,
    freeze_redis,
    drop_redis_connections,
    restart_postgres,
    freeze_postgres,
    drop_database_connections,
    copy_messages,
    remote_away,
)
