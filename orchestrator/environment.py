"""The environment that an agent sees: what is named here, and nothing else of the worker's own.

A worker holds the addresses and passwords of the fleet. None of them reaches an agent: its environment is built from an
allow-list, and the variables of the fleet are struck from it even where a list names them. Nor do they reach the programs
that the worker starts for itself, such as git: an agent could read them there, under /proc.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account
from orchestrator.process_list import COOKIE_VARIABLE

FLEET_PREFIX: Final = "ORCHESTRATOR_"

_OF_FLEET_PROCESSES: Final = (f"{FLEET_PREFIX}*", "FLOWER_*", "CELERY_*", "PG*")
"""What the libraries of a process of the fleet read besides our own variables may hold its passwords too."""

ALWAYS_ALLOWED: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR",
    "LANG", "LANGUAGE", "LC_*", "TERM", "TZ",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip
"""What programs need to find themselves and the network. HOME is among them: git, caches and tool chains live there."""

_SETTINGS_FOR_MACHINES: Final = {
    "GIT_TERMINAL_PROMPT": "0",  # a question that nobody can answer is an error at once
    "PYTHONUNBUFFERED": "1",  # output that waits in a buffer looks like an idle agent
}


def agent_environment(
    *,
    allow: Collection[str],
    extra: Mapping[str, str],
    cookie: str,
    base: Mapping[str, str] = os.environ,
    account: Account | None = None,
) -> dict[str, str]:
    """The environment of one attempt.

    Of `base`, the worker's own, `ALWAYS_ALLOWED` and `allow` pass, exact names or patterns such as `AWS_*`, and never a
    variable of the fleet. `extra` is laid over that. `cookie` marks every process of the attempt (`process_tree`). The
    programs of the worker's virtual environment stay on the PATH. `account` is the one that the agent runs under, if it is
    not ours.
    """
    passed = {name: base[name] for name in names_allowed(base, (*ALWAYS_ALLOWED, *allow))}
    if account is not None:
        passed = of_account(account, passed)
    path = _with_own_programs(passed.get("PATH", os.defpath))
    return {**_SETTINGS_FOR_MACHINES, **passed, "PATH": path, **extra, COOKIE_VARIABLE: cookie}


def own_programs_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a program that a process of the fleet starts for itself: its own without what is the fleet's,
    and with the cookie by which such a program is found (`process_tree.mark_helpers`)."""
    return {
        name: value
        for name, value in base.items()
        if name == COOKIE_VARIABLE or not any(fnmatchcase(name, pattern) for pattern in _OF_FLEET_PROCESSES)
    }


def of_account(account: Account, variables: Mapping[str, str]) -> dict[str, str]:
    """Our variables, with those of a login of the account. Our TMPDIR may be closed to it: it has /tmp."""
    return {**{name: value for name, value in variables.items() if name != "TMPDIR"}, **account.variables}


def names_allowed(base: Mapping[str, str], patterns: Collection[str]) -> list[str]:
    """The variables of `base` that one of the patterns names, those of the fleet left out."""
    return [
        name
        for name in base
        if not name.startswith(FLEET_PREFIX) and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _with_own_programs(path: str) -> str:
    """The PATH with the worker's virtual environment in it, so that `pytest` in a plan is the one installed beside us."""
    own = str(Path(sys.executable).parent)
    if sys.prefix == sys.base_prefix or own in path.split(os.pathsep):
        return path
    return f"{own}{os.pathsep}{path}"
