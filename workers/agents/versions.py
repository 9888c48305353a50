"""Which version of an agent's program is installed here, asked once for each file that is found."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from orchestrator.accounts import Account, find_program, make_folder, of_process
from orchestrator.environment import agent_environment
from orchestrator.process_tree import kill_trees, owner_of_this_process

VERSION_SECONDS: Final = 20.0
"""How long a program may take to say its version."""


@cache
def _asking(path: str) -> threading.Lock:
    return threading.Lock()


@dataclass(frozen=True)
class AgentVersion:
    """Whether the agent can run on this machine. `note` says in words what stands against it."""

    found: bool
    version: str | None = None
    supported: bool = False
    path: Path | None = None
    note: str = ""

    @property
    def is_too_old(self) -> bool:
        """A program that does not tell its version is tried."""
        return self.version is not None and not self.supported


def program_version(
    program: str,
    oldest: tuple[int, ...] = (),
    *,
    search: str | None = None,
    ask: bool = True,
    account: Account | None = None,
) -> AgentVersion:
    """The version of `program`, a name that is looked for on the PATH `search` (of agents here) or a path, and whether
    it is at least `oldest`. Without `ask` only whether it is there. `account` is that of the agents; None: ours."""
    search = search or agent_environment(allow=(), extra={}, cookie="")["PATH"]
    path = find_program(program, path=search, account=account)
    if path is None:
        return AgentVersion(found=False, note=missing_in_words(program))
    if not ask:
        return AgentVersion(found=True, supported=True, path=Path(path))
    with _asking(path):  # eight attempts that begin together ask once
        version, fault = _ask(path, os.stat(path).st_mtime_ns, account)  # noqa: PTH116
    if version is None:
        return AgentVersion(found=True, path=Path(path), note=fault)
    number = tuple(int(part) for part in version.split("."))
    if number < oldest:
        needed = ".".join(map(str, oldest))
        return AgentVersion(True, version, path=Path(path), note=f"version {needed} or newer is needed")
    return AgentVersion(True, version, supported=True, path=Path(path))


def missing_in_words(program: str, *, where: str = "the PATH") -> str:
    if "/" in program:
        return f"{program} is no program that can be run here"
    return f"{program} is not on {where}"


@lru_cache(maxsize=64)
def _ask(path: str, _changed: int, account: Account | None) -> tuple[str | None, str]:
    """The first number with a dot in what `program --version` prints, or None and what went wrong.

    The program sees nothing of the worker's, and leaves what it writes on the way in a folder that is removed.
    """
    # Another account may not be able to reach our TMPDIR.
    place = "/tmp" if account else None  # noqa: S108 - mkdtemp
    with tempfile.TemporaryDirectory(prefix="version-", dir=place, ignore_cleanup_errors=True) as folder:
        if account is not None:
            Path(folder).chmod(0o711)
        home = Path(folder, "home")
        make_folder(home, account)
        cookie = f"{owner_of_this_process()}.{Path(folder).name}"
        env = agent_environment(allow=(), extra={"HOME": str(home)}, cookie=cookie, account=account)
        try:
            answer = subprocess.run(
                [path, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=home,
                env=env,
                text=True,
                errors="replace",
                timeout=VERSION_SECONDS,
                check=False,
                **of_process(account),
            )
        except OSError as error:
            return None, f"{path} can't be started: {error.strerror}"
        except subprocess.TimeoutExpired:
            kill_trees(cookie.__eq__)  # what it has started would outlive it
            return None, f"{path} --version gave no answer within {VERSION_SECONDS:g} s"
    # One of them has no such flag: it introduces itself before it says so.
    number = re.search(r"version (\d+(?:\.\d+)+)" if answer.returncode else r"(\d+(?:\.\d+)+)", answer.stdout)
    if number is not None:
        return number[1], ""
    if answer.returncode == 0:
        return None, f"{path} --version told no version"
    said = answer.stderr.strip().splitlines()[-1:]
    return None, ": ".join([f"{path} --version ended with exit code {answer.returncode}", *said])
