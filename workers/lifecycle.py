"""What a process of the fleet does when it starts, when it is asked to stop, and when it ends.

signal to a worker            what happens
TERM, INT (first)             nothing new is taken; running agents get `drain_seconds`, then are ended, recorded as
                              `interrupted` and requeued at once; no retry is charged
TERM, INT (again)             the same without the rest of `drain_seconds`
QUIT                          ends at once; the guard ends its agents, leases expire, and the work goes on elsewhere
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.platforms import EX_OK
from celery.worker import state

from orchestrator import process_tree
from orchestrator.accounts import Account, prepare_for
from orchestrator.claimed_folders import sweep_folders
from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import ConfigurationError, OrchestratorException
from orchestrator.local.lifeline import watch_keeper
from orchestrator.logging import configure_logging
from orchestrator.recovery.reconciler import Reconciler
from orchestrator.settings import Settings, file_with_passwords, others_may_read
from orchestrator.task_names import CONTROL_QUEUE
from workers.agent_runner import AgentRunner
from workers.guard import Guard, guard_against_death_only
from workers.leaving import Leaving
from workers.oversight import remove_orphaned_groups
from workers.pool import refuse_other_pools

log = logging.getLogger(__name__)


def follow_lifecycle(app: Celery, fleet: Callable[[], Fleet], runner: Callable[[], AgentRunner]) -> None:
    """Connect to Celery's signals of a worker process. `fleet` and `runner` are first called here, in its main thread."""
    reconcilers: list[Reconciler] = []
    leaving = Leaving()
    guards: list[Guard] = []

    def set_up_logging(loglevel: int | str = logging.INFO, **_: Any) -> None:
        configure_logging(fleet().settings.log_format, loglevel or logging.INFO)

    def begin(sender: Any, **_: Any) -> None:
        refuse_other_pools(sender.pool_cls)
        set_up_logging(sender.loglevel)  # Celery asks for it after this only, and what is said here would be lost
        services_answer = watch_keeper(lambda: os.kill(os.getpid(), signal.SIGTERM))
        services_answer.wait()
        try:
            keep_from_agents(fleet())
            process_tree.mark_helpers()
            process_tree.kill_orphans()
            if _takes_agents(app):
                runner().begin()
            else:
                sweep_after_the_dead(fleet().settings)
                guards.append(guard_against_death_only(fleet().settings.log_format))
        except OrchestratorException as error:
            # Celery goes on after any other error of a receiver.
            log.critical("%s", error, extra={"event": "worker.can_not_begin", **error.context})
            raise SystemExit(error.exit_code) from error
        except Exception as error:
            log.critical("This process can't begin.", exc_info=True, extra={"event": "worker.can_not_begin"})
            raise SystemExit(1) from error

    def ready(**_: Any) -> None:
        _take_over_signals(leaving)
        leaving.heed(
            begin=lambda: fleet().leaving.set("leaving"),
            end_agents=runner().keeper.interrupt if _takes_agents(app) else lambda: None,
            drain_seconds=fleet().settings.drain_seconds,
        )
        if CONTROL_QUEUE in app.amqp.queues.consume_from:
            reconcilers.append(Reconciler(fleet()))
            reconcilers[-1].start()

    def shutting_down(**_: Any) -> None:
        leaving.ask()

    def end(**_: Any) -> None:
        for reconciler in reconcilers:
            reconciler.stop()
        if _takes_agents(app):
            runner().end()
        for guard in guards:
            guard.close()
        fleet().engine.dispose()

    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.worker_init.connect(begin, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_shutdown.connect(end, weak=False)


def keep_from_agents(fleet: Fleet) -> None:
    """Make ready to give agents and checks the account that `agent_user` names, say so, and warn of what is open to them.

    Raises `ConfigurationError` where it can't be taken, or could reach what is not meant for it.
    """
    settings, account = fleet.settings, fleet.agent_account
    if account is not None:
        refuse_that_of_postgres(settings.state_dir, account)
        folders = (settings.state_dir, settings.workspaces_dir, settings.repositories_dir)
        file = file_with_passwords()
        prepare_for(account, folders=folders, closed_files=() if file is None else (file,))
    say_account(fleet)
    warn_of_readable_passwords()


def say_account(fleet: Fleet) -> None:
    """As root, who the agents are is a choice: it stands in the log, also where nobody has made it."""
    account = fleet.agent_account
    if account is not None:
        home = "" if Path(account.home).is_dir() else f" Its home {account.home} is missing."
        words = f"Agents and checks run under the account {account.name}.{home}"
        log.info(words, extra={"event": "account.chosen", "account": account.name})
    elif os.geteuid() == 0 and not fleet.settings.sandboxed:
        words = "Agents and checks run as root, as this process does: ORCHESTRATOR_AGENT_USER names another account."
        log.warning(words, extra={"event": "account.root"})


def refuse_that_of_postgres(state_dir: Path, account: Account) -> None:
    """Root's local stack runs PostgreSQL under an account of its own: whoever has that has the fleet's database."""
    data = state_dir / "postgres"
    if data.exists() and data.stat().st_uid == account.uid:
        raise ConfigurationError(
            f"The account {account.name} is that of the PostgreSQL of this machine's local stack.",
            context={"agent_user": account.name, "folder": str(data)},
            recovery="Let agents have another one.",
        )


def sweep_after_the_dead(settings: Settings) -> None:
    """What a dispatcher removes at its start, as a worker does: folders and control groups whose process is dead. There may
    be no worker on its machine."""
    sweep_folders(settings.workspaces_dir)
    if settings.cgroup is not None:
        remove_orphaned_groups(str(settings.cgroup))


def warn_of_readable_passwords() -> None:
    """Variables of this process are closed to its agents, a file of its account is not."""
    file = file_with_passwords()
    if file is None or (os.geteuid() == 0 and not others_may_read(file)):
        return
    log.warning(
        "Agents can read the passwords in %s%s: give this process the addresses of the fleet by variables.",
        file,
        ", and so can other accounts" if others_may_read(file) else "",
        extra={"event": "worker.readable_passwords", "file": str(file)},
    )


def _take_over_signals(leaving: Leaving) -> None:
    """TERM and INT stop this process in order, QUIT ends it.

    Celery's own handlers send one of its signals, for which they take a lock: two TERMs within a millisecond, and the
    second one waited for ever for the first one, which it had interrupted. Those of INT and QUIT want to terminate the
    pool's tasks besides, which threads can't (NotImplementedError), and then wait for them for ever.
    """

    def stop(*_: Any) -> None:
        leaving.ask()
        state.should_stop = EX_OK  # type: ignore[assignment]  # None until then

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(128 + signal.SIGQUIT))


def _takes_agents(app: Celery) -> bool:
    return any(name != CONTROL_QUEUE for name in app.amqp.queues.consume_from)
