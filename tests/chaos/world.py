"""One run's world: servers, two dispatchers, three workers, a repository, and a job that takes some seconds."""

from __future__ import annotations

import random
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator import control_group
from orchestrator.fault_points import FOLDER_VARIABLE
from tests.chaos import agent
from tests.chaos.points import Points
from tests.support.fleet import TestFleet, open_fleet
from tests.support.island import Island
from tests.support.relay import Relay, unix_listener
from tests.support.repositories import new_repository, shell
from tests.support.services import Services, open_temporary_folder

DISPATCHERS: Final = ("dispatcher-a", "dispatcher-b")
WORKERS: Final = ("worker-a", "worker-b", "worker-c")
RELAYED: Final = ("dispatcher-b", "worker-c")
"""These reach the database through a relay, which can lose its answers."""
SLOTS: Final = 3
GROUPS: Final = 3
SIZE: Final = 6
LONG: Final = 1
"""The subtask of each group that outlives a lease."""
REMEMBERING: Final = (1, 3, 5)
"""Those of each group whose agent has a session, which a later attempt goes on with."""
AT_ONCE: Final = 5
GRACE_SECONDS: Final = 60.0
LEASE_SECONDS: Final = 4.0
BEAT_SECONDS: Final = 0.2
CHECKPOINT_SECONDS: Final = 0.5


@dataclass
class Circumstances:
    """What is special about a process: variables, and a command that becomes it."""

    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()


@dataclass
class World:
    """Everything that a fault may touch. `diary` gets a line at each start and end of an agent, and between them."""

    rng: random.Random
    services: Services
    fleet: TestFleet
    repository: Path
    diary: Path
    points: Points
    relay: Relay
    resources: ExitStack
    circumstances: dict[str, Circumstances]
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Every message that the outbox ever held, by its row's id."""
    _island: Island | None = None
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def revive(self, name: str) -> None:
        """Start a process again if it is gone, as a service manager would."""
        with self._starting:
            process = self.fleet.processes.get(name)
            if process is not None and process.poll() is None:
                return
            special = self.circumstances[name]
            if name in DISPATCHERS:
                self.fleet.start_dispatcher(name, prefix=special.prefix, **special.environment)
            else:
                self.fleet.start_worker(name, slots=SLOTS, prefix=special.prefix, **special.environment)

    def signal(self, name: str, number: int) -> subprocess.Popen[bytes]:
        process = self.fleet.processes[name]
        if process.poll() is None:
            process.send_signal(number)
        return process

    def island(self) -> Island:
        """A network of its own that reaches both servers, made when first asked for."""
        if self._island is None:
            self._island = Island()
            self.resources.callback(self._island.close)
            self._island.relay(self.services.postgres.server.sockets / ".s.PGSQL.5432", 5432)
            self._island.relay(self.services.redis.server.socket, 6379)
        return self._island

    def write_plan(self) -> Path:
        """The plan as a file: agents that write their life into the diary, and change a file of their own."""
        import yaml

        plan = {
            "title": "Chaos",
            "repo": str(self.repository),
            "max_parallel_agents": AT_ONCE,
            "max_retries": 20,
            "group_checks": "sleep 0.3; ls *.txt > /dev/null",
            "subtasks": [self._subtask(n) for n in range(1, GROUPS * SIZE + 1)],
        }
        path = self.fleet.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        return path

    def _subtask(self, subtask_id: int) -> dict[str, Any]:
        subtask = shell(subtask_id, self._command(subtask_id), group=1 + (subtask_id - 1) // SIZE, timeout="60s")
        if remembers(subtask_id):
            subtask["agent"]["name"] = "remembering"
        return subtask

    def _command(self, subtask_id: int) -> str:
        """If nobody ended an agent that outlives its lease, it would meet the one that takes its place.

        Whoever remembers writes each attempt's number first into its file, then into its memory: it must never find an
        earlier attempt in its memory whose line is not in the file."""
        beats = self.rng.randint(2, 14)
        if subtask_id % SIZE == LONG:
            beats = round((LEASE_SECONDS + self.rng.uniform(4.0, 5.0)) / BEAT_SECONDS)
        line, file = "$ORCHESTRATOR_SUBTASK $ORCHESTRATOR_ATTEMPT_NUMBER", "$ORCHESTRATOR_SUBTASK.txt"
        live = f"for _ in $(seq {beats}); do sleep {BEAT_SECONDS}; say .; done"
        work = f"{live}; echo {line} > {file}"
        if remembers(subtask_id):
            find_all = f'touch $MEMORY; while read -r known; do grep -qx "$known" {file} || say "!"; done < $MEMORY'
            work = f"{find_all}; echo {line} >> {file}; echo {line} >> $MEMORY; {live}"
        return (
            'say() { printf "%s %s %s %s %s\\n" "$1" "$ORCHESTRATOR_SUBTASK" "$ORCHESTRATOR_ATTEMPT_NUMBER"'
            f' "$ORCHESTRATOR_ATTEMPT" "$EPOCHREALTIME" >> {self.diary}; }}; say +; {work}; say -'
        )


def remembers(subtask_id: int) -> bool:
    return 1 + (subtask_id - 1) % SIZE in REMEMBERING


@contextmanager
def new_world(seed: int, prepare: Callable[[World], None]) -> Iterator[World]:
    """A world of its own for this seed, prepared before its first process starts; every process of it is gone afterwards, whatever happened to it."""
    with ExitStack() as resources:
        folder = open_temporary_folder(f"chaos-{seed}-")
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        services = Services()
        resources.callback(services.close)
        database = services.postgres.new_database()
        (folder / "relay").mkdir()
        relay = Relay(
            unix_listener(folder / "relay" / ".s.PGSQL.5432"), services.postgres.server.sockets / ".s.PGSQL.5432"
        )
        resources.callback(relay.close)
        relayed = database.replace(str(services.postgres.server.sockets), str(folder / "relay"))
        settings: dict[str, Any] = {"unreachable_grace_seconds": GRACE_SECONDS, "lease_seconds": LEASE_SECONDS}
        settings |= {"agent_modules": [agent.MODULE], "checkpoint_seconds": CHECKPOINT_SECONDS}
        group = _new_control_group() if seed % 2 else None  # else trees are found through /proc
        if group is not None:
            settings["cgroup"] = group
            resources.callback(_remove_control_group, group)
        fleet = open_fleet(database, services.redis.url, folder, **settings)
        points = Points(folder / "points")
        circumstances = {name: Circumstances() for name in (*DISPATCHERS, *WORKERS)}
        for name, special in circumstances.items():
            special.environment[FOLDER_VARIABLE] = str(points.folder)
            if name in RELAYED:
                special.environment["ORCHESTRATOR_DATABASE_URL"] = relayed
        world = World(
            random.Random(seed),
            services,
            fleet,
            new_repository(folder / "repository"),
            folder / "diary",
            points,
            relay,
            resources,
            circumstances,
        )
        world.diary.touch()
        try:
            prepare(world)
            for name in circumstances:
                world.revive(name)
            yield world
        finally:
            for process in fleet.processes.values():
                process.send_signal(signal.SIGCONT)
            fleet.close()


def _new_control_group() -> Path | None:
    """A control group as an administrator would delegate it, where that is possible."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    folder = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if folder is None:
        return None
    group = folder / f"orchestrator-chaos-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError:
        return None
    return group


def _remove_control_group(group: Path) -> None:
    for _, path in control_group.groups_in(str(group)):
        control_group.remove(path)
    group.rmdir()
