"""This process's part in the fleet: made once, used by every slot's thread."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import cache, partial

from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import DatabaseUnavailable
from orchestrator.state.engine import create_engine, translated
from orchestrator.state.log_chunks import write_log_chunks
from orchestrator.state.transitions import claims
from orchestrator.state.transitions.claims import Claim, Wanted
from orchestrator.together import Together
from workers.agents.protocol import Agent, AgentConfig
from workers.agents.registry import agent_class
from workers.checkpoint_keeper import CheckpointKeeper
from workers.governor import Governor
from workers.lease_keeper import LeaseKeeper
from workers.log_stream import LogBatch, LogStream
from workers.oversight import Oversight
from workers.pushes import Pushes
from workers.recording import Recorder
from workers.removal import Removal
from workers.slots import Slots
from workers.spare_checkouts import SpareCheckouts
from workers.workspaces import Workspaces


class AgentRunner:
    """Leases, log stream, limits and guard have one thread each, whatever the number of agents."""

    def __init__(self, fleet: Fleet, slots: Slots) -> None:
        settings = fleet.settings
        self.fleet = fleet
        self.slots = slots
        self.settings = settings
        self.agent_class: Callable[[str], type[Agent[AgentConfig]]] = cache(partial(agent_class, settings=settings))
        # Of its own: a renewal must not wait behind agents' ends, which may all wait for one job's row.
        self._leases = create_engine(fleet.database_url, pool_size=1, application_name="orchestrator leases")
        self.keeper = LeaseKeeper(
            self._leases,
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.renew_seconds,
            unreachable_grace_seconds=settings.unreachable_grace_seconds,
        )
        self.oversight = Oversight(settings, self.keeper)
        self._removal = Removal(max(settings.slots, 1))
        self._spares = SpareCheckouts(
            settings.workspaces_dir, most=settings.most_spare_checkouts, max_bytes=settings.max_workspace_bytes
        )
        self.workspaces = Workspaces(
            settings.workspaces_dir,
            fleet.repositories,
            later=self._removal.later,
            spares=self._spares,
            account=fleet.agent_account,
        )
        self.logs = LogStream(self._write_logs, max_bytes_per_attempt=settings.max_log_bytes)
        self.pushes = Pushes()
        self.checkpoints = CheckpointKeeper(settings.checkpoint_seconds)
        self.recorder = Recorder(fleet)
        self.governor = Governor(fleet)
        self._claim = Together(self._claim_all, shared=(DatabaseUnavailable,))

    def begin(self) -> None:
        """Before the first message: remove what a dead worker has left on this machine. Its processes have ended."""
        self.oversight.begin()
        self.workspaces.sweep()

    def end(self) -> None:
        """After the last attempt was recorded."""
        self.checkpoints.close()
        self.oversight.end()
        self.keeper.close()
        self._leases.dispose()
        self.logs.stop()
        self._spares.close()
        self._removal.close()
        self.governor.close()

    def claim(self, worker: str, job_id: str, subtask_id: int, chord_id: str | None) -> Claim | None:
        """Take a lease for an attempt at the subtask, together with others that come at the same moment; alone where its
        agent has a provider."""
        wanted = Wanted(subtask_id, chord_id, secrets.token_hex(16), account=None)
        return self._claim((worker, job_id), wanted) or self.governor.claim(worker, job_id, wanted)

    def _claim_all(self, key: tuple[str, str], wanted: Sequence[Wanted]) -> list[Claim | None]:
        worker, job_id = key
        return claims.claim(
            self.fleet.engine,
            job_id,
            wanted,
            worker=worker,
            lease_seconds=self.settings.lease_seconds,
            plain_agents=self.governor.plain_agents,
        )

    def _write_logs(self, batch: LogBatch) -> None:
        with translated(), self.fleet.engine.begin() as connection:
            write_log_chunks(connection, batch.chunks, batch.drops)
