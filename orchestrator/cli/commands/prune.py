"""`orchestrator prune`: forget old jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.recovery.pruner import PrunedJob

LEFT_SOMETHING = 3


def prune(
    *,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Only jobs that ended so long ago: 12h, 30d.")] = "30d",
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="Keep the N jobs that ended last, however old.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    branches: Annotated[
        bool, typer.Option("--branches", help="Delete their integration branches too, where nobody has moved them.")
    ] = False,
    unmerged: Annotated[
        bool, typer.Option("--unmerged", help="Delete changes that were never merged too: they are nowhere else.")
    ] = False,
    refs: Annotated[
        bool, typer.Option("--refs/--no-refs", help="Delete the attempts' refs on the jobs' repositories.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Forget old jobs.

    Deletes the rows and logs of jobs that have ended, the refs of their attempts on their repositories, and on this
    machine the workspaces of dead processes and the repository caches that no job names any more. Open jobs, integration
    branches and changes that were never merged stay. Exit code 3 if a job was left because its repository can't be
    reached or refuses.
    """
    from orchestrator.access.connect import database
    from orchestrator.cli.render import print_json
    from orchestrator.recovery.pruner import PruneRules, old_jobs, prune_jobs, prune_machine
    from orchestrator.settings import load_settings

    settings = load_settings()
    rules = PruneRules(_age(older_than), keep, branches=branches, unmerged=unmerged, refs=refs, dry_run=dry_run)
    with database() as engine:
        pruned = list(prune_jobs(engine, old_jobs(engine, rules), rules))
        gone = [one.job.id for one in pruned if one.is_gone]
        caches, workspaces = prune_machine(engine, settings, gone, dry_run=dry_run)
    if as_json:
        jobs = [_document(one) for one in pruned]
        print_json({"dry_run": dry_run, "jobs": jobs, "caches": caches, "workspaces": workspaces})
    else:
        _print(pruned, caches, workspaces, dry_run=dry_run)
    if any(one.problem for one in pruned):
        raise typer.Exit(LEFT_SOMETHING)


def _age(written: str) -> float:
    from orchestrator.errors import ConfigurationError
    from orchestrator.plan.values import seconds_in

    seconds = seconds_in(written)
    if seconds is None:
        raise ConfigurationError(f"--older-than {written} is no age.", recovery="Write it as 12h or 30d.")
    return seconds


def _document(pruned: PrunedJob) -> dict[str, Any]:
    from orchestrator.cli.render import instant

    return {
        "id": pruned.job.id,
        "title": pruned.job.title,
        "status": pruned.job.status,
        "finished_at": instant(pruned.job.finished_at),
        "deleted": pruned.is_gone,
        "refs_deleted": list(pruned.cleared.deleted),
        "refs_kept": list(pruned.cleared.kept),
        "branch_deleted": pruned.cleared.branch_deleted,
        "problem": pruned.problem,
    }


def _print(pruned: Sequence[PrunedJob], caches: Sequence[str], workspaces: Sequence[str], *, dry_run: bool) -> None:
    from orchestrator.cli.render import console, local_time, print_table
    from orchestrator.text import in_one_line, plural

    gone = [one for one in pruned if one.is_gone]
    kept = sum(len(one.cleared.kept) for one in gone)
    if gone:
        rows = [
            (one.job.id, one.job.status, local_time(one.job.finished_at), _refs(one), one.job.title) for one in gone
        ]
        print_table(console(), ("job", "status", "ended", "refs", "title"), rows, longest={"title": 40})
        print()
    counts = [plural(len(gone), "job"), plural(sum(len(one.cleared.deleted) for one in gone), "ref")]
    counts += [f"{sum(one.cleared.branch_deleted for one in gone)} of their branches"]
    counts += [plural(len(caches), "repository cache"), plural(len(workspaces), "abandoned workspace")]
    print(f"{'Would delete' if dry_run else 'Deleted'} {', '.join(counts)}.")
    if kept:
        print(
            f"{plural(kept, 'ref')} of changes that were never merged {'stay' if kept > 1 else 'stays'}; see --unmerged."
        )
    for one in pruned:
        if one.problem:
            print(f"Left job {one.job.id} as it is: {in_one_line(one.problem)}")


def _refs(pruned: PrunedJob) -> str:
    cleared = pruned.cleared
    kept = f", {len(cleared.kept)} stay" if cleared.kept else ""
    return f"{len(cleared.deleted)}{kept}{', branch' if cleared.branch_deleted else ''}"
