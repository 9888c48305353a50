"""The refs of old jobs on their repository: listed once, deleted in few pushes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.git import NETWORK_TIMEOUT_SECONDS, last_line, object_format, run_git
from orchestrator.submitted_repository import is_url

REFS_A_PUSH: Final = 500
LIST_TIMEOUT_SECONDS: Final = 60.0
_OF_ATTEMPT: Final = re.compile(r"refs/orchestrator/(?P<job>[^/]+)/(?P<subtask>\d+)/\d+(-checkpoint-[01])?")


@dataclass(frozen=True)
class RefsOfJob:
    """What a job may have on its repository. `branch` is at `head_commit` unless somebody has moved it."""

    job_id: str
    branch: str | None
    head_commit: str | None
    unmerged: frozenset[int]
    """Subtasks whose change is on no branch as far as was recorded: their refs are the only ones that hold it."""


@dataclass(frozen=True)
class Cleared:
    """What went, or would. `problem` is git's reason where a ref could not be deleted."""

    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    branch_deleted: bool = False
    problem: str | None = None


def clear_refs(
    repo: str, jobs: Sequence[RefsOfJob], *, unmerged: bool, branches: bool, dry_run: bool
) -> dict[str, Cleared]:
    """Delete the refs of these jobs' attempts, and say by job what became of them.

    With `unmerged` also the refs of changes that were never merged, with `branches` also the integration branches that
    nobody has moved. Raises `GitError` where the repository can't be read; a local one that is gone has no refs.
    """
    if not is_url(repo) and not Path(repo).exists():
        return {job.job_id: Cleared() for job in jobs}
    found = _list(repo)
    wanted = {job.job_id: _to_delete(job, found, unmerged=unmerged, branches=branches) for job in jobs}
    refusals: dict[str, str] = {}
    if not dry_run:
        refusals = _delete(repo, {ref: found[ref] for refs in wanted.values() for ref in refs})
    return {job.job_id: _cleared(job, found, wanted[job.job_id], refusals) for job in jobs}


def _list(repo: str) -> dict[str, str]:
    """Every ref of ours there, and the commit that it names."""
    listing = run_git(
        *("ls-remote", "--", repo, "refs/orchestrator/*", "refs/heads/orchestrator/*"),
        cwd=None,
        user_config=True,
        timeout_seconds=LIST_TIMEOUT_SECONDS,
    )
    pairs = (line.split("\t") for line in listing.text.splitlines())
    return {ref: commit for commit, ref in pairs}


def _to_delete(job: RefsOfJob, found: Mapping[str, str], *, unmerged: bool, branches: bool) -> list[str]:
    chosen = []
    for ref in found:
        match = _OF_ATTEMPT.fullmatch(ref)
        if match and match["job"] == job.job_id and (unmerged or int(match["subtask"]) not in job.unmerged):
            chosen.append(ref)
    branch = f"refs/heads/{job.branch}"
    if branches and job.head_commit is not None and found.get(branch) == job.head_commit:
        chosen.append(branch)
    return chosen


def _delete(repo: str, commits: Mapping[str, str]) -> dict[str, str]:
    """Delete the refs where they still name these commits. Returns git's reason by ref that it refused."""
    if not commits:
        return {}
    refusals: dict[str, str] = {}
    refs = list(commits)
    format_ = f"--object-format={object_format(commits[refs[0]])}"
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        run_git("init", "--quiet", "--bare", "--template=", format_, folder, cwd=None)
        for start in range(0, len(refs), REFS_A_PUSH):
            some = refs[start : start + REFS_A_PUSH]
            leases = [f"--force-with-lease={ref}:{commits[ref]}" for ref in some]
            answer = run_git(
                *("push", "--porcelain", "--no-verify", *leases, "--", repo, *(f":{ref}" for ref in some)),
                cwd=Path(folder),
                user_config=True,
                check=False,
                timeout_seconds=NETWORK_TIMEOUT_SECONDS,
            )
            told = dict(_status_of_ref(line) for line in answer.text.splitlines() if line.count("\t") >= 2)
            untold = (last_line(answer.stderr) or "git failed") if answer.exit_code else ""
            refusals |= {ref: reason for ref in some if (reason := told.get(ref, untold))}
    return refusals


def _status_of_ref(line: str) -> tuple[str, str]:
    """A porcelain line, `flag TAB from:to TAB words`, as the ref and the reason of its refusal, empty for none."""
    flag, names, words = line.split("\t", 2)
    return names.partition(":")[2], words if flag == "!" else ""


def _cleared(job: RefsOfJob, found: Mapping[str, str], chosen: Sequence[str], refusals: Mapping[str, str]) -> Cleared:
    branch = f"refs/heads/{job.branch}"
    gone = [ref for ref in chosen if ref not in refusals]
    attempts = [ref for ref in found if ref.startswith(f"refs/orchestrator/{job.job_id}/")]
    refused = [f"{ref}: {refusals[ref]}" for ref in chosen if ref in refusals]
    return Cleared(
        deleted=tuple(ref for ref in gone if ref != branch),
        kept=tuple(ref for ref in attempts if ref not in gone),
        branch_deleted=branch in gone,
        problem=refused[0] if refused else None,
    )
