"""One run's world: servers, two dispatchers, three workers, a repository, and a job that takes some seconds."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.fleet import TestFleet, open_fleet
from tests.support.repositories import new_repository, shell
from tests.support.services import Services, open_temporary_folder

DISPATCHERS: Final = ("dispatcher-a", "dispatcher-b")
WORKERS: Final = ("worker-a", "worker-b", "worker-c")
SLOTS: Final = 3
GROUPS: Final = 3
SIZE: Final = 6
AT_ONCE: Final = 5


@dataclass
class World:
    """Everything that a fault may touch. `diary` gets a line at each start and end of an agent."""

    rng: random.Random
    services: Services
    fleet: TestFleet
    repository: Path
    diary: Path

    def revive(self, name: str) -> None:
        """Start a process again if it is gone, as a service manager would."""
        process = self.fleet.processes.get(name)
        if process is None or process.poll() is not None:
            if name in DISPATCHERS:
                self.fleet.start_dispatcher(name)
            else:
                self.fleet.start_worker(name, slots=SLOTS)

    def signal(self, name: str, number: int) -> None:
        process = self.fleet.processes[name]
        if process.poll() is None:
            process.send_signal(number)

    def plan(self) -> dict[str, Any]:
        """Agents that write their start and end into the diary, work for a moment, and change a file of their own."""
        return {
            "title": "Chaos",
            "repo": str(self.repository),
            "max_parallel_agents": AT_ONCE,
            "max_retries": 20,
            "group_checks": "sleep 0.3; ls *.txt > /dev/null",
            "subtasks": [
                shell(n, self._command(), group=1 + (n - 1) // SIZE, timeout="60s") for n in range(1, GROUPS * SIZE + 1)
            ],
        }

    def _command(self) -> str:
        who = "$ORCHESTRATOR_SUBTASK $ORCHESTRATOR_ATTEMPT_NUMBER"
        seconds = round(self.rng.uniform(0.3, 3.0), 2)
        return (
            f'echo "+ {who} $(date +%s%N)" >> {self.diary}; sleep {seconds}; '
            f'echo $ORCHESTRATOR_SUBTASK > $ORCHESTRATOR_SUBTASK.txt; echo "- {who} $(date +%s%N)" >> {self.diary}'
        )


@contextmanager
def new_world(seed: int) -> Iterator[World]:
    """A world of its own for this seed; every process of it is gone afterwards, whatever happened to it."""
    folder = open_temporary_folder(f"chaos-{seed}-")
    services = Services()
    fleet = open_fleet(services.postgres.new_database(), services.redis.url, folder)
    world = World(random.Random(seed), services, fleet, new_repository(folder / "repository"), folder / "diary")
    world.diary.touch()
    try:
        for name in (*DISPATCHERS, *WORKERS):
            world.revive(name)
        yield world
    finally:
        for process in fleet.processes.values():
            process.send_signal(signal.SIGCONT)
        fleet.close()
        services.close()
        shutil.rmtree(folder, ignore_errors=True)
