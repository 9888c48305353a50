"""Forgetting old jobs: their rows, the refs that hold their attempts' commits, and what this machine kept for them.

A job's refs go first and its rows after, so a prune that is interrupted leaves nothing behind that no row tells of: the
next one goes on. A job whose repository can't be read is left for the next one too. Nothing of an open job is touched:
rows go only while the job is final, and the ref of a change that was never merged stays unless that is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, text

from orchestrator.claimed_folders import abandoned_folders, sweep_folders
from orchestrator.errors import GitError
from orchestrator.recovery.old_refs import Cleared, RefsOfJob, clear_refs
from orchestrator.repository_cache import RepositoryCache
from orchestrator.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PruneRules:
    """Which jobs go: those that ended `older_than_seconds` ago and are not among the `keep` that ended last.

    And what goes with them: with `branches` the integration branches that nobody has moved, with `unmerged` the refs of
    changes that were never merged. `refs` False leaves the repositories alone. A `dry_run` only looks.
    """

    older_than_seconds: float
    keep: int = 0
    branches: bool = False
    unmerged: bool = False
    refs: bool = True
    dry_run: bool = False


@dataclass(frozen=True)
class OldJob:
    id: str
    title: str
    status: str
    finished_at: datetime
    repo: str | None
    branch: str | None
    head_commit: str | None
    unmerged: tuple[int, ...]
    """Its subtasks whose change was never merged."""


@dataclass(frozen=True)
class PrunedJob:
    """`is_gone`: its rows are deleted, or in a dry run would be. `problem` says why it was left."""

    job: OldJob
    cleared: Cleared
    is_gone: bool
    problem: str | None = None


_OLD_JOBS: Final = text(
    """
    SELECT id, title, status, finished_at, repo, branch, head_commit,
           ARRAY(SELECT subtask_id FROM subtasks s WHERE s.job_id = final.id AND merged_at IS NULL) AS unmerged
    FROM (SELECT *, row_number() OVER (ORDER BY finished_at DESC, id) AS place FROM jobs WHERE finished_at IS NOT NULL) AS final
    WHERE place > :keep AND finished_at <= clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY finished_at, id
    """
)


def old_jobs(engine: Engine, rules: PruneRules) -> list[OldJob]:
    """The jobs that the rules name, oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(_OLD_JOBS, {"seconds": rules.older_than_seconds, "keep": rules.keep})
        return [OldJob(**{**row._mapping, "unmerged": tuple(row.unmerged)}) for row in rows]


def prune_jobs(engine: Engine, jobs: Sequence[OldJob], rules: PruneRules) -> Iterator[PrunedJob]:
    """Let the jobs go, repository by repository, and say of each what became of it."""
    by_repo: dict[str | None, list[OldJob]] = {}
    for job in jobs:
        by_repo.setdefault(job.repo if rules.refs else None, []).append(job)
    for repo, of_repo in by_repo.items():
        try:
            cleared = _clear(repo, of_repo, rules)
        except GitError as error:
            yield from (PrunedJob(job, Cleared(), False, error.message) for job in of_repo)
            continue
        for job in of_repo:
            yield _forget(engine, job, cleared.get(job.id, Cleared()), rules)


def _clear(repo: str | None, jobs: Sequence[OldJob], rules: PruneRules) -> Mapping[str, Cleared]:
    if repo is None:
        return {}
    refs = [RefsOfJob(job.id, job.branch, job.head_commit, frozenset(job.unmerged)) for job in jobs]
    return clear_refs(repo, refs, unmerged=rules.unmerged, branches=rules.branches, dry_run=rules.dry_run)


def _forget(engine: Engine, job: OldJob, cleared: Cleared, rules: PruneRules) -> PrunedJob:
    if cleared.problem is not None:
        return PrunedJob(job, cleared, False, cleared.problem)
    if rules.dry_run:
        return PrunedJob(job, cleared, True)
    if not _delete_rows(engine, job.id):
        return PrunedJob(job, cleared, False, "it was taken up again")
    log.info("Forgot job %s.", job.id, extra={"event": "job.pruned", "job_id": job.id})
    return PrunedJob(job, cleared, True)


def _delete_rows(engine: Engine, job_id: str) -> bool:
    """Delete the job and, by the foreign keys, all that belongs to it. False: it is not final any more, or gone."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # the logs of ten thousand agents take their time
        gone = connection.execute(
            text("DELETE FROM jobs WHERE id = :job_id AND finished_at IS NOT NULL RETURNING id"), {"job_id": job_id}
        ).first()
    return gone is not None


def needed_repositories(engine: Engine, live_jobs: Sequence[str], forgotten: Sequence[str]) -> list[str] | None:
    """The repositories of all jobs that are left, and of those at work on this machine.

    `forgotten` jobs do not count unless they are at work; a dry run names those that it would forget. None: somebody is
    at work here for a job that this database does not know, so nobody can say what is needed.
    """
    with engine.connect() as connection:
        known = connection.execute(text("SELECT id FROM jobs WHERE id = ANY(:live)"), {"live": list(live_jobs)})
        if set(live_jobs) - set(known.scalars()):
            return None
        rows = connection.execute(
            text(
                "SELECT DISTINCT repo FROM jobs WHERE repo IS NOT NULL AND (id = ANY(:live) OR NOT id = ANY(:forgotten))"
            ),
            {"live": list(live_jobs), "forgotten": list(forgotten)},
        )
        return list(rows.scalars())


def prune_machine(
    engine: Engine, settings: Settings, forgotten: Sequence[str], *, dry_run: bool
) -> tuple[list[str], list[str]]:
    """Remove what this machine keeps for nobody. Returns the names of repository caches and of workspaces."""
    workspaces = settings.workspaces_dir
    swept = abandoned_folders(workspaces) if dry_run else sweep_folders(workspaces)
    caches = RepositoryCache(settings.repositories_dir).remove_unneeded(
        workspaces, lambda live: needed_repositories(engine, live, forgotten if dry_run else ()), dry_run=dry_run
    )
    return caches, swept
