"""Git, run so that the same command means the same on every machine.

Two kinds of commands:

- on repositories of our own (caches, workspaces) nothing outside the repository counts: no system or user configuration,
  no `GIT_*` variable, no hook. The same inputs give the same commits on every worker.
- `user_config=True`, on the user's repository and for every fetch and push: the user's configuration counts, because
  credentials, proxies, ssh commands and `safe.directory` live there. What could change a result is overridden.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from orchestrator.accounts import Account, of_process
from orchestrator.environment import ALWAYS_ALLOWED, names_allowed, of_account, own_programs_environment
from orchestrator.errors import ConfigurationError, GitError
from orchestrator.git_credentials import kept_apart, refused
from orchestrator.process_list import COOKIE_VARIABLE
from orchestrator.redaction import redact_url
from orchestrator.supervisor import StopSignal

OLDEST_GIT: Final = (2, 38)
"""The first with `git merge-tree --write-tree`."""

IDENTITY: Final = {
    "GIT_AUTHOR_NAME": "orchestrator",
    "GIT_AUTHOR_EMAIL": "orchestrator@localhost",
    "GIT_COMMITTER_NAME": "orchestrator",
    "GIT_COMMITTER_EMAIL": "orchestrator@localhost",
}
"""Who commits what no agent has committed, and who merges."""

LOCAL_TIMEOUT_SECONDS: Final = 300.0
CLEARING_UP_SECONDS: Final = 3.0
"""What git gets after TERM to remove its locks, before KILL: one that stays in the user's repository is in every later push's way."""
NETWORK_TIMEOUT_SECONDS: Final = 3600.0

ALWAYS: Final = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.version", "2"),  # lets a client ask for a commit that no branch names
    ("protocol.ext.allow", "never"),  # a plan's `repo` must not become a command line
    ("fetch.unpackLimit", "1"),  # a fetch appears as one whole pack: no commit is visible before its files
    ("fetch.pruneTags", "false"),
    ("push.followTags", "false"),
    ("push.gpgSign", "false"),
    ("push.recurseSubmodules", "no"),
    ("submodule.recurse", "false"),
    ("advice.detachedHead", "false"),
)
OWN_REPOSITORIES: Final = (
    ("fastimport.unpackLimit", "1"),  # one pack, without another program
    ("core.excludesFile", os.devnull),
    ("core.attributesFile", os.devnull),
    ("core.fileMode", "true"),
    ("core.symlinks", "true"),
    ("core.trustctime", "true"),
    ("core.checkStat", "default"),
    ("core.autocrlf", "false"),
    ("core.safecrlf", "false"),
)
KEPT_FOR_REMOTES: Final = re.compile(
    r"GIT_(SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|PROXY_COMMAND|ALLOW_PROTOCOL|SSL_\w+|HTTP_\w+"
    r"|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"
)
SAID_OF_ANY_FAILURE: Final = (
    "error: failed to push some refs",
    "fatal: Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists",
)
"""What git adds whatever was wrong with a remote; the reason stands before it."""
FULL_ID: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class GitResult:
    """What a git command said. `stdout` stays bytes: file names have no encoding; `stderr` is free of credentials."""

    stdout: bytes
    stderr: str
    exit_code: int

    @property
    def text(self) -> str:
        """`stdout` as text without the last line's end."""
        return self.stdout.decode("utf-8", "backslashreplace").rstrip("\n")


def attempt_ref(job_id: str, subtask_id: int, attempt_number: int) -> str:
    """Where an attempt's commit is kept on the repository's remote, outside of branches and tags."""
    return f"refs/orchestrator/{job_id}/{subtask_id}/{attempt_number}"


def checkpoint_ref(job_id: str, subtask_id: int, attempt_number: int, turn: int) -> str:
    """Where the work of an attempt that is under way is kept, for the case that its worker is lost: two places in turn
    (0, 1), so that the last one stands until the next is recorded."""
    return f"{attempt_ref(job_id, subtask_id, attempt_number)}-checkpoint-{turn}"


def run_git(
    *args: str | Path,
    cwd: Path | None,
    input: bytes | IO[bytes] | None = None,  # noqa: A002 - subprocess's own word for it
    output: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = LOCAL_TIMEOUT_SECONDS,
    check: bool = True,
    user_config: bool = False,
    nice: int = 0,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
    account: Account | None = None,
) -> GitResult:
    """Run one git command to its end, with its children.

    `input` may be a file, and `output` one that gets what would be in `stdout`. `env` adds variables (`GIT_INDEX_FILE`,
    dates). `nice` lowers its priority, that of its reading and writing too. `on_start` is given its process, which another
    thread may kill. `account` runs it, and not ours, where others may have written the repository's configuration: it then
    sees nothing that agents do not see.

    Raises `GitError` for a failure (unless `check` is false) and for a command that outlives `timeout_seconds`,
    `ConfigurationError` when there is no git.
    """
    if cwd is not None and not cwd.is_dir():
        raise GitError(f"There is no folder {cwd} to run git in.", context={"command": _shown(args), "cwd": str(cwd)})
    variables = _environment(user_config, account) | dict(env or {})
    for kept in kept_apart([str(arg) for arg in args], variables):
        settings = [*ALWAYS, *(() if user_config else OWN_REPOSITORIES), *kept.settings]
        command = ["nice", "-n", str(nice)] if nice else []
        command += ["git", "--no-pager", *(part for key, value in settings for part in ("-c", f"{key}={value}"))]
        command += kept.args
        result = _run(command, args, cwd, input, output, variables | kept.variables, timeout_seconds, on_start, account)
        if not refused(result.stderr):
            break
    if check and result.exit_code != 0:
        raise failure(args, result, cwd)
    return result


def _run(  # noqa: PLR0917 - what `run_git` was given
    command: Sequence[str],
    args: Sequence[str | Path],
    cwd: Path | None,
    input: bytes | IO[bytes] | None,  # noqa: A002 - as above
    output: IO[bytes] | None,
    variables: Mapping[str, str],
    timeout_seconds: float,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None,
    account: Account | None,
) -> GitResult:
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE if isinstance(input, bytes) else input,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # no terminal that ssh could ask on, and one group to end with its children
            **of_process(account),
        )
    except FileNotFoundError as error:
        raise _no_git() from error
    if on_start is not None:
        on_start(process)
    try:
        with _ending_on_request(process):
            words = input if isinstance(input, bytes) else None
            stdout, stderr_bytes = process.communicate(words, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"git {_subcommand(args)} did not end within {timeout_seconds:g} s.",
            context={"command": _shown(args), "cwd": str(cwd)},
            recovery="Is the remote reachable from this machine?",
        ) from error
    finally:
        if process.returncode is None:
            _end_group(process)
    stderr = redact_url(stderr_bytes.decode("utf-8", "backslashreplace")).strip()
    return GitResult(stdout or b"", stderr, process.returncode)


@contextmanager
def until_stopped(stop: StopSignal, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Inside it no git command outlives the signal, or its own start after it, by more than that: a remote that does not
    answer would be waited for, for up to an hour. One that is ended so raises `GitError`. Holds for this thread alone; one
    inside of another one adds a signal."""
    before = _stopping.set((*_stopping.get(), (stop, patience_seconds)))
    try:
        yield
    finally:
        _stopping.reset(before)


_stopping: Final[ContextVar[tuple[tuple[StopSignal, float], ...]]] = ContextVar("stopping", default=())


@contextmanager
def _ending_on_request(process: subprocess.Popen[bytes]) -> Iterator[None]:
    with ExitStack() as signals:
        for stop, patience_seconds in _stopping.get():
            signals.enter_context(_ended_by(stop, patience_seconds, process))
        yield


@contextmanager
def _ended_by(stop: StopSignal, patience_seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    steps = ((patience_seconds, signal.SIGTERM), (patience_seconds + CLEARING_UP_SECONDS, signal.SIGKILL))
    timers = [threading.Timer(seconds, _signal_group, (process, number)) for seconds, number in steps]

    def begin_to_end() -> None:
        for timer in timers:
            timer.daemon = True
            timer.start()

    try:
        with stop.reacting(begin_to_end):
            yield
    finally:
        for timer in timers:
            timer.cancel()


def raise_if_stopped() -> None:
    """Raise `GitError` inside of an `until_stopped` whose signal is set: for waits that are no git command's."""
    if any(stop.reason for stop, _ in _stopping.get()):
        raise GitError("It is not wanted any more.")


def failure(args: Sequence[str | Path], result: GitResult, cwd: Path | None) -> GitError:
    """The error for a command that ended so."""
    return GitError(
        f"git {_subcommand(args)} failed: {last_line(result.stderr) or f'exit code {result.exit_code}'}.",
        context={
            "command": _shown(args),
            "stderr": result.stderr,
            "exit_code": result.exit_code,
            "cwd": str(cwd),
        },
    )


def last_line(stderr: str) -> str:
    """The line of git's complaint that says what is wrong, without git's prefix and without the full stop."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("hint:")]
    telling = [line for line in lines if not line.startswith(SAID_OF_ANY_FAILURE)] or lines
    fatal = [line for line in telling if line.startswith("fatal:")]
    unpacking = [line for line in telling if line.startswith("error: remote unpack failed:")]
    chosen = (fatal or unpacking or telling or [""])[-1]
    return re.sub(r"^((fatal|error|remote): |! )", "", chosen).rstrip(".")


def require_git() -> str:
    """The version of git on the PATH, `2.39.5`. Raises `ConfigurationError` when it is missing or too old."""
    found = run_git("version", cwd=None).text
    match = re.search(r"(\d+)\.(\d+)(\.\d+)*", found)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_GIT:
        raise ConfigurationError(
            f"git is too old: {found} was found, {'.'.join(map(str, OLDEST_GIT))} or newer is needed.",
            context={"found": found},
            recovery="Install a newer git, or put it first on the PATH.",
        )
    return match[0]


def object_format(commit: str) -> str:
    return "sha256" if len(commit) == 64 else "sha1"


def empty_tree(commit: str) -> str:
    """The id of the tree without entries, in the format of `commit`. Git knows it without its being stored."""
    return hashlib.new(object_format(commit), b"tree 0\0").hexdigest()


def _no_git() -> ConfigurationError:
    return ConfigurationError("git was not found on the PATH.", recovery="Install git 2.38 or newer.")


def _shown(args: Sequence[str | Path]) -> str:
    return redact_url(shlex.join(["git", *map(str, args)]))


def _subcommand(args: Sequence[str | Path]) -> str:
    return next((str(arg) for arg in args if not str(arg).startswith("-")), "")


def _environment(user_config: bool, account: Account | None) -> dict[str, str]:
    base = own_programs_environment()
    if account is not None:
        allowed = {*names_allowed(base, ALWAYS_ALLOWED), COOKIE_VARIABLE}
        base = of_account(account, {name: value for name, value in base.items() if name in allowed})
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith("GIT_") or name == "GIT_EXEC_PATH" or (user_config and KEPT_FOR_REMOTES.fullmatch(name))
    }
    if not user_config:
        kept |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
    return kept | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",  # `git status` would otherwise write the user's index
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",  # a file may be called *
    }


def _end_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process, signal.SIGTERM)
    try:
        process.communicate(timeout=CLEARING_UP_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.communicate()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.returncode is None:  # else its number may be somebody else's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
