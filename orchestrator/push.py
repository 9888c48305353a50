"""A push to a user's repository, which may be away, or be there and refuse: two different things to whoever waits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import GitError
from orchestrator.git import NETWORK_TIMEOUT_SECONDS, failure, run_git
from orchestrator.redaction import redact_url


@dataclass(frozen=True)
class Refusal:
    """`reason` is git's, such as "[remote rejected] (pre-receive hook declined)"; `said` is what a hook there printed."""

    reason: str
    said: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.said}" if self.said else self.reason


def push(
    repo: str,
    source: str,
    ref: str,
    *,
    expected: str | None,
    cwd: Path,
    overwrite: bool = False,
    timeout_seconds: float = NETWORK_TIMEOUT_SECONDS,
) -> Refusal | None:
    """Push `source` to `ref`, which must be at `expected` (None: must not exist) unless it is to be overwritten. A ref
    that is at `source` satisfies any.

    Returns why the repository refuses, or None when the ref is there. Raises `GitError` when nobody answers in time.
    """
    lease = "--force" if overwrite else f"--force-with-lease={ref}:{expected or ''}"
    result = run_git(
        *("push", "--porcelain", "--no-verify", lease, "--", repo, f"{source}:{ref}"),
        cwd=cwd,
        check=False,
        user_config=True,
        timeout_seconds=timeout_seconds,
    )
    if result.exit_code == 0:
        return None
    refused = next((line for line in result.text.splitlines() if line.startswith("!\t")), None)
    if refused is None:
        raise failure(["push", "--", repo, f"{source}:{ref}"], result, cwd)
    lines = [line.removeprefix("remote:").strip() for line in result.stderr.splitlines() if line.startswith("remote:")]
    return Refusal(redact_url(refused.split("\t")[-1]), " ".join(line for line in lines if line))


def push_new(
    repo: str, commits: Mapping[str, str], *, cwd: Path, lenders: Sequence[Path], timeout_seconds: float
) -> bool:
    """Push many new refs at once: ref → its commit, as `push` does each with nothing expected. `lenders` are `objects`
    folders that `cwd` borrows for it.

    False where one of them may not be there afterwards: which of them are, and why, is asked with `push`.
    """
    leases = [f"--force-with-lease={ref}:" for ref in commits]
    specs = [f"{commit}:{ref}" for ref, commit in commits.items()]
    try:
        result = run_git(
            *("push", "--quiet", "--no-verify", *leases, "--", repo, *specs),
            cwd=cwd,
            env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(map(str, lenders))},
            check=False,
            user_config=True,
            timeout_seconds=timeout_seconds,
        )
    except GitError:
        return False
    return result.exit_code == 0
