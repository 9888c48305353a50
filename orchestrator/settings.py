"""Settings, read once into one frozen object.

Order of precedence: arguments of `load_settings`, `ORCHESTRATOR_*` variables, `orchestrator.toml` in the working
directory (or the file named by `ORCHESTRATOR_CONFIG`), the defaults below.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from orchestrator.environment import FLEET_PREFIX
from orchestrator.errors import ConfigurationError
from orchestrator.prices import Price
from orchestrator.redaction import passwords_of

CONFIG_VARIABLE: Final = f"{FLEET_PREFIX}CONFIG"
CONFIG_FILE: Final = "orchestrator.toml"


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/orchestrator`, else `~/.local/state/orchestrator`; for root with none set `/var/lib/orchestrator`.

    Root's home is closed to the account that PostgreSQL must run under, hence the exception.
    """
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named) / "orchestrator"
    if os.geteuid() == 0:
        return Path("/var/lib/orchestrator")
    return Path.home() / ".local" / "state" / "orchestrator"


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Everything that a process of the fleet is told from outside."""

    model_config = SettingsConfigDict(env_prefix=FLEET_PREFIX, frozen=True, extra="forbid")

    broker_url: str | None = Field(
        None, description="Redis or Valkey, as redis://[:password@]host:port/0 or redis+socket://path"
    )
    database_url: str | None = Field(None, description="PostgreSQL, as postgresql://user:password@host:port/name")
    state_dir: Path = Field(
        default_factory=default_state_dir, description="data of the embedded stack, repository caches"
    )
    work_dir: Path | None = Field(None, description="where workspaces are made; default: workspaces under state_dir")
    agent_modules: CommaSeparated = Field(
        default_factory=list,
        description="modules to import so that their @register_agent classes are known, comma-separated",
    )
    capabilities: CommaSeparated = Field(
        default_factory=list, description="what this worker offers beyond the plain queue, comma-separated"
    )
    pass_to_agents: CommaSeparated = Field(
        default_factory=list,
        description="variables of the worker that agents may see besides those that they are known to need, "
        "comma-separated: NAME, a pattern such as AWS_*, or AGENT:NAME for one agent",
    )
    sandboxed: bool = Field(
        False,
        description="this worker's machine is a container or a virtual machine made for agents: as root, "
        "`permissions: full` is refused without it, unless agent_user names another account",
    )
    agent_user: str | None = Field(
        None,
        description="the account under which agents and all checks run, of workers and dispatchers that run as root; "
        "default: their own",
    )
    slots: int = Field(8, ge=1, le=1000, description="agents at once in one worker process")
    log_format: str = Field("text", pattern="^(text|json)$", description="logs of worker and dispatcher")

    lease_seconds: float = Field(
        30.0, ge=2, description="how long a worker or a merging dispatcher may be silent before its work is lost"
    )
    renew_seconds: float = Field(
        2.0, gt=0, description="how often a worker renews its leases and hears of cancellations"
    )
    unreachable_grace_seconds: float = Field(
        600.0, ge=0, description="how long agents work on while the database is away"
    )
    reconcile_seconds: float = Field(2.0, gt=0, description="how often each dispatcher looks for what stands still")
    republish_seconds: float = Field(
        30.0, gt=0, description="first wait for a claim before a message is sent again; doubles"
    )
    body_grace_seconds: float = Field(
        5.0, ge=0, description="how long the net leaves a finished group to its chord's callback"
    )
    kill_grace_seconds: float = Field(2.0, ge=0, description="between TERM and KILL of an agent's process tree")
    drain_seconds: float = Field(0.0, ge=0, description="what running agents get when their worker is asked to stop")
    max_redeliveries: int = Field(5, ge=0, description="how often a subtask may lose its worker before it fails")
    retry_initial_seconds: float = Field(2.0, ge=0, description="back-off after the first failure")
    retry_max_seconds: float = Field(300.0, ge=0, description="the longest back-off, before jitter")
    check_timeout_seconds: float = Field(1800.0, gt=0, description="deadline of a subtask's or a group's check")
    max_log_bytes: int = Field(
        16 * 2**20, ge=2**16, description="log kept per attempt: half from its head, half from its tail"
    )
    max_output_bytes: int | None = Field(2**30, ge=1, description="what one attempt may write to stdout and stderr")
    max_workspace_bytes: int | None = Field(
        None, ge=1, description="disk that one attempt's workspace may take; default: no limit"
    )
    spare_checkouts: int | None = Field(
        None,
        ge=0,
        description="clean checkouts of large repositories that a worker makes ahead while its agents work, at most; all "
        "together take no more than max_workspace_bytes; default: as many as slots; 0: none",
    )
    max_session_bytes: int = Field(
        16 * 2**20, ge=1, description="an agent's session, compressed, that is kept for the next attempt to go on with"
    )
    checkpoint_seconds: float = Field(
        60.0,
        ge=0,
        description="how often a running agent's session and work are kept, for the case that its worker is lost; "
        "0: only at its end",
    )
    cgroup: Path | None = Field(
        None,
        description="cgroup v2 folder for the attempts' own groups; default: the worker's group, if systemd delegates it",
    )

    prices: dict[str, Price] = Field(
        default_factory=dict,
        description="USD per million tokens by model, over the table that comes with this version; the variable is a JSON "
        'object, and a table `[prices."MODEL"]` of the file holds `input`, `output`, `cache_read` and `cache_write`',
    )

    @property
    def workspaces_dir(self) -> Path:
        return self.work_dir or self.state_dir / "workspaces"

    @property
    def most_spare_checkouts(self) -> int:
        return self.slots if self.spare_checkouts is None else self.spare_checkouts

    @property
    def repositories_dir(self) -> Path:
        """Bare caches, one a repository."""
        return self.state_dir / "repositories"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE)
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Raises `ConfigurationError` that names each wrong value, and where the file is missing
    that `ORCHESTRATOR_CONFIG` names: whoever names one wants the fleet in it, and no stack of this machine."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise ConfigurationError(
            f"There is no settings file {named}, which {CONFIG_VARIABLE} names.",
            context={"file": named},
            recovery="Correct the path, or unset the variable.",
        )
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(_in_words(e) for e in error.errors())
        raise ConfigurationError(
            f"The settings can't be used: {wrong}.", recovery="See ORCHESTRATOR_* variables and orchestrator.toml."
        ) from error
    except (ValueError, OSError) as error:  # TOML that is no TOML; a file that may not be read
        file = named or CONFIG_FILE
        raise ConfigurationError(
            f"The settings file {file} can't be read: {error}.",
            context={"file": file},
            recovery=f"Mend it, or name another one in {CONFIG_VARIABLE}.",
        ) from error


def file_with_passwords() -> Path | None:
    """The settings file in use, if a password of the fleet stands in it. Whoever may read it has the password: its owner,
    and so every agent of a worker that runs under that account."""
    file = Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE)
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return file if any(passwords_of(str(said.get(name, ""))) for name in ("broker_url", "database_url")) else None


def others_may_read(file: Path) -> bool:
    return bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def misspelt_variables() -> dict[str, str]:
    """Variables of this process that look like a setting's and are none, each with the one that was probably meant.

    They can't be errors: agents' programs and containers have variables of their own that begin so.
    """
    known = {FLEET_PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    close = {
        name: difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.85)
        for name in os.environ
        if name.startswith(FLEET_PREFIX) and name not in known
    }
    return {name: meant[0] for name, meant in close.items() if meant}


def _in_words(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    return f"there is no setting {name}" if error["type"] == "extra_forbidden" else f"{name}: {error['msg']}"
