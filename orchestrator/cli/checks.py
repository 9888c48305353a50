"""What `orchestrator doctor` looks at. Each check returns findings and raises nothing that a broken set-up can cause."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from orchestrator.environment import own_programs_environment
from orchestrator.errors import OrchestratorException
from orchestrator.redaction import redact_url

if TYPE_CHECKING:
    from orchestrator.settings import Settings

OLDEST_GIT: Final = (2, 38)
"""The first with `git merge-tree --write-tree`, by which every merge is made."""
OLDEST_REDIS: Final = (6, 2)
"""The first with the commands that Celery's transport uses."""
NOTHING_IS_EVICTED: Final = "noeviction"


@dataclass(frozen=True)
class Check:
    """One finding. `remedy` says what to do about a warning or a failure."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def check_everything() -> list[Check]:
    """All findings, in the order in which one would mend them."""
    from orchestrator.settings import load_settings

    checks = [check_git()]
    try:
        settings = load_settings()
    except OrchestratorException as error:
        return [*checks, _failed("settings", error)]
    checks.append(check_settings(settings))
    checks.append(check_state_folder(settings))
    checks.extend(check_services(settings))
    checks.extend(check_agents(settings))
    return checks


def check_settings(settings: Settings) -> Check:
    """They are sound, or there would be none; a variable that was misspelt is ignored without a word."""
    from orchestrator.settings import file_with_passwords, misspelt_variables, others_may_read

    if misspelt := misspelt_variables():
        names = ", ".join(f"{name} (did you mean {meant}?)" for name, meant in sorted(misspelt.items()))
        return Check("settings", "warn", f"no settings are {names}", "Correct or unset them: they have no effect.")
    file = file_with_passwords()
    if file is not None and others_may_read(file):
        return Check(
            "settings", "warn", f"other accounts may read the passwords in {file}", f"Close it: chmod 600 {file}"
        )
    return Check("settings", "ok", f"state folder {settings.state_dir}, {settings.slots} slots a worker")


def check_git() -> Check:
    remedy = f"Install git {OLDEST_GIT[0]}.{OLDEST_GIT[1]} or newer."
    if shutil.which("git") is None:
        return Check("git", "fail", "git is not on the PATH", remedy)
    said = subprocess.run(
        ["git", "--version"], env=own_programs_environment(), capture_output=True, text=True, check=False, timeout=20
    ).stdout.strip()
    version = _version(said)
    return Check("git", "ok" if version >= OLDEST_GIT else "fail", said, remedy)


def check_state_folder(settings: Settings) -> Check:
    from orchestrator.local.folders import open_folders

    try:
        # As the local stack makes it: a folder made in another way would be closed to PostgreSQL's account.
        folder = open_folders(settings.state_dir).root
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OrchestratorException as error:
        return _failed("state folder", error)
    except OSError as error:
        return Check(
            "state folder",
            "fail",
            f"{settings.state_dir} can't be written to: {error.strerror}",
            "Mend its owner or mode, or set ORCHESTRATOR_STATE_DIR to another folder.",
        )
    free_bytes = shutil.disk_usage(folder).free
    state: Literal["ok", "warn"] = "ok" if free_bytes > 2**30 else "warn"
    return Check(
        "state folder", state, f"{folder}, {free_bytes / 2**30:.1f} GiB free", "Make room: workspaces live there."
    )


def check_services(settings: Settings) -> Iterator[Check]:
    """Database, broker and fleet: what is configured, else the local stack, started for a moment."""
    from orchestrator.local.client import Need, local_stack

    try:
        with local_stack(settings, need=Need.SERVICES) as stack:
            database = check_database(stack.settings, is_local=settings.database_url is None)
            yield database
            if database.state == "ok":
                yield from check_providers(stack.settings)
            broker = check_broker_server(stack.settings, is_local=settings.broker_url is None)
            yield broker
            if broker.state != "fail":
                yield from check_fleet(stack.settings, is_local=settings.broker_url is None)
    except OrchestratorException as error:
        yield _failed("local stack", error)


def check_database(settings: Settings, *, is_local: bool) -> Check:
    from sqlalchemy import text

    from orchestrator.state import migrate
    from orchestrator.state.engine import create_engine, translated

    where = "the local stack's" if is_local else redact_url(settings.database_url or "")
    try:
        engine = create_engine(settings.database_url or "", pool_size=1)
        with translated(), engine.connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
        revision = migrate.current(engine)
        engine.dispose()
    except OrchestratorException as error:
        return _failed("database", error)
    found = f"PostgreSQL {version}, revision {revision or 'none'}, {where}"
    return Check("database", "ok" if revision == migrate.head() else "fail", found, "Run `orchestrator db upgrade`.")


def check_providers(settings: Settings) -> Iterator[Check]:
    """A provider that has had enough slows every worker, which looks like a fleet that does nothing."""
    from orchestrator.cli.commands.workers import look_at_accounts
    from orchestrator.cli.describe import limit_words
    from orchestrator.text import plural

    for view in look_at_accounts(settings) or ():
        if view.limit is not None:
            waiting = f", {plural(view.waiting, 'subtask')} waiting" if view.waiting else ""
            found = f"{limit_words(view)}, {view.running} at work{waiting}"
            yield Check(f"provider {view.account.words}", "warn", found, "It asked for less. This passes by itself.")


def check_broker_server(settings: Settings, *, is_local: bool) -> Check:
    """Reached at all, new enough, and told never to evict: a broker that evicts forgets messages without a word."""
    from orchestrator.celery_app import check_broker, create_app

    where = "the local stack's" if is_local else redact_url(settings.broker_url or "")
    try:
        check_broker(settings)
        with create_app(settings).connection_for_read() as connection:
            channel: Any = connection.default_channel
            info: dict[str, Any] = channel.client.info()
    except OrchestratorException as error:
        return _failed("broker", error)
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version')}"
    policy = info.get("maxmemory_policy", "unknown")
    found = f"{server}, eviction policy {policy}, {where}"
    if _version(str(info.get("redis_version", ""))) < OLDEST_REDIS:
        return Check("broker", "fail", found, f"Redis {OLDEST_REDIS[0]}.{OLDEST_REDIS[1]} or newer is needed.")
    if policy != NOTHING_IS_EVICTED and info.get("maxmemory", 0):
        return Check(
            "broker", "warn", found, "Set `maxmemory-policy noeviction`: evicted messages are only found again late."
        )
    return Check("broker", "ok", found)


def check_fleet(settings: Settings, *, is_local: bool) -> Iterator[Check]:
    from orchestrator.access.nodes import look_at_fleet
    from orchestrator.text import plural

    try:
        nodes = look_at_fleet(settings)
    except OrchestratorException as error:
        yield _failed("fleet", error)
        return
    dispatchers = [node for node in nodes if node.is_dispatcher]
    workers = [node for node in nodes if node.is_worker]
    if is_local and not nodes:
        yield Check("fleet", "ok", "none runs now; `orchestrator run` and `up` start their own")
        return
    slots = plural(sum(node.slots for node in workers), "slot")
    yield Check(
        "dispatchers",
        "ok" if dispatchers else "fail",
        f"{plural(len(dispatchers), 'dispatcher')} answering",
        "Start `orchestrator dispatcher` somewhere: no job moves on without one.",
    )
    yield Check(
        "workers",
        "ok" if workers else "fail",
        f"{plural(len(workers), 'worker')} answering, with {slots}",
        "Start `orchestrator worker` somewhere: no agent runs without one.",
    )


def check_agents(settings: Settings) -> Iterator[Check]:
    """An agent that is not installed is no fault of a set-up that does not use it, so it is a warning at most."""
    from orchestrator.cli.commands.agents import look_at_agents

    try:
        agents = look_at_agents(settings)
    except OrchestratorException as error:
        yield _failed("agents", error)
        return
    for agent in agents:
        found = " ".join(part for part in (agent["version"], agent["path"], agent["note"]) if part)
        remedy = "" if agent["supported"] else "Plans that name it fail on this machine."
        yield Check(f"agent {agent['name']}", "ok" if agent["supported"] else "warn", found, remedy)


def _failed(name: str, error: OrchestratorException) -> Check:
    return Check(name, "fail", error.message, error.recovery)


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else (0, 0)
