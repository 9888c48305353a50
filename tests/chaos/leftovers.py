"""What must not be left once every process of the fleet has ended."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from orchestrator import control_group
from orchestrator.claimed_folders import CLAIMS
from orchestrator.process_list import COOKIE_VARIABLE
from tests.chaos.world import World
from tests.support.waiting import wait_until


def leftovers(world: World) -> list[str]:
    """Complaints. What a worker could not clear away because it was killed is for the next start of any worker."""
    try:
        wait_until(lambda: not list(_processes(world)), "nothing of any attempt is alive", timeout_seconds=5)
    except AssertionError:
        return list(_processes(world))
    if list(_remains(world)):
        world.revive("worker-a")
        log = world.fleet.folder / "worker-a.log"
        said = log.read_text().count(" ready.")
        wait_until(lambda: log.read_text().count(" ready.") > said, "the next worker has swept", timeout_seconds=60)
        world.fleet.stop("worker-a")
    return list(_remains(world))


def _processes(world: World) -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            if COOKIE_VARIABLE in process.environ() and process.cwd().startswith(str(world.fleet.folder)):
                yield f"process {process.pid} of an attempt lives on: {process.cmdline()}"
        except (psutil.Error, OSError):
            continue


def _remains(world: World) -> Iterator[str]:
    folder = world.fleet.settings.workspaces_dir
    if folder.exists():
        yield from (f"the workspace {path.name} is left" for path in folder.iterdir() if path.name != CLAIMS)
    group = world.fleet.settings.cgroup
    if group is not None:
        yield from (f"the control group {name} is left" for name, _ in control_group.groups_in(str(group)))
