"""Whatever stands around a running agent: its cookie, its control group, its limits, and the guard of this worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import control_group, process_tree
from orchestrator.errors import ConfigurationError
from orchestrator.plan.model import Limits
from orchestrator.settings import Settings
from orchestrator.supervisor import StopSignal
from workers.folder_size import FolderSize
from workers.guard import Guard
from workers.lease_keeper import LeaseKeeper
from workers.limits import LimitsKeeper, Meter

log = logging.getLogger(__name__)


class Oversight:
    """One a worker. `begin` before the first attempt, `end` after the last."""

    def __init__(self, settings: Settings, keeper: LeaseKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._owner = process_tree.owner_of_this_process()
        self._base: str | None = None

    def begin(self) -> None:
        """Remove the groups of dead workers, and start the guard. Raises `ConfigurationError` when the
        setting `cgroup` names a group that can't be used."""
        self._base = _find_base(self._settings.cgroup)
        if self._base is not None:
            remove_orphaned_groups(self._base)
        self._limits = LimitsKeeper()
        self._guard = Guard(
            self._owner,
            self._keeper.silence_allowed_until,
            group=self._base,
            log_format=self._settings.log_format,
        )

    def end(self) -> None:
        self._limits.close()
        self._guard.close()

    @contextmanager
    def watch(self, attempt_id: int, limits: Limits, folder: Path, stop: StopSignal) -> Iterator[Watch]:
        """What the programs of one attempt run under. `folder` is its workspace; `stop` is set when a limit is passed."""
        cookie = f"{self._owner}.{attempt_id}"
        settings = self._settings
        with ExitStack() as resources:
            group = None
            if self._base is not None:
                group = control_group.make(
                    self._base, cookie, memory_bytes=limits.memory_bytes, processes=limits.processes
                )
                resources.callback(control_group.remove, group)
            meter = Meter(
                cookie,
                limits,
                stop,
                group=group,
                max_output_bytes=settings.max_output_bytes,
                folder=FolderSize(folder),
                max_folder_bytes=settings.max_workspace_bytes,
            )
            resources.enter_context(self._limits.watching(meter))
            yield Watch(self._guard, meter)


@dataclass(frozen=True)
class Watch:
    """One attempt's."""

    guard: Guard
    meter: Meter

    @property
    def cookie(self) -> str:
        """Marks every process of the attempt. It is no secret: the lease's token stays out of the agent's sight."""
        return self.meter.cookie

    @property
    def group(self) -> str | None:
        return self.meter.group

    @contextmanager
    def running(self, pid: int) -> Iterator[None]:
        """While the program `pid` and its tree run. Once the block is left, `stop` says whether the guard or the kernel
        ended it."""
        with self.guard.holding(pid, self.meter.stop):
            self.meter.sessions.add(pid)
            try:
                yield
            finally:
                self.meter.sessions.discard(pid)
                self.meter.look_back()


def _find_base(named: Path | None) -> str | None:
    try:
        base = control_group.find_base(None if named is None else str(named))
    except OSError as error:
        raise ConfigurationError(
            f"The control group {named} can't be used: {error}.",
            context={"cgroup": str(named)},
            recovery="Name a cgroup v2 folder that this account may write to, or leave the setting cgroup out.",
        ) from error
    log.info(
        "Attempts run %s.",
        f"in control groups under {base}" if base else "without control groups; their trees are found through /proc",
        extra={"event": "oversight.begun", "cgroup": base},
    )
    return base


def remove_orphaned_groups(base: str) -> None:
    """End and remove the groups of attempts whose worker is dead."""
    for cookie, group in control_group.groups_in(base):
        if process_tree.is_orphaned(cookie):
            control_group.kill(group)
            control_group.remove(group)
