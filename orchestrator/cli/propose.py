"""Ask an agent for a plan at the command line: each question a job that is shown, then the plan's file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.errors import BadInput
from orchestrator.ledger import in_words
from orchestrator.text import first_line, plural

if TYPE_CHECKING:
    from orchestrator.access.connect import Joined
    from orchestrator.plan.planning import Planning
    from orchestrator.plan.proposal import Proposal
    from orchestrator.submitted_repository import RepositoryAtSubmission

LONGEST_GOAL_BYTES: Final = 64 * 1024
"""It is a part of every agent's prompt."""


@dataclass(frozen=True)
class Place:
    """`repo` as plans name it. `repository` is what it is, where it is on this machine."""

    repo: str
    repository: RepositoryAtSubmission | None


def goal_in_words(said: str) -> str:
    """GOAL itself, or what the file or stdin holds that it names. Raises `BadInput`."""
    source = "stdin" if said == "-" else said.removeprefix("@") if said.startswith("@") else "GOAL"
    try:
        if said == "-":
            data = sys.stdin.buffer.read(LONGEST_GOAL_BYTES + 1)
        elif said.startswith("@"):
            with Path(source).expanduser().open("rb") as file:
                data = file.read(LONGEST_GOAL_BYTES + 1)
        else:
            data = os.fsencode(said)
        goal = data.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
        raise BadInput(f"The goal can't be read from {source}: {why}.", context={"source": source}) from None
    if not goal or "\0" in goal:
        where = "" if source == "GOAL" else f" from {source}"
        raise BadInput(f"The goal{where} is {'no text' if goal else 'empty'}.", recovery="Say what is to be done.")
    if len(data) > LONGEST_GOAL_BYTES:
        raise BadInput(
            f"The goal is longer than {LONGEST_GOAL_BYTES // 1024} KiB.",
            recovery="Commit the long of it into the repository, and name that file in the goal.",
        )
    return goal


def where_to_look(repo: str, base: str | None) -> Place:
    """The repository, looked at before anything is started where it is on this machine. Raises `RepositoryError`."""
    from orchestrator.submitted_repository import is_url, resolve_repository

    if is_url(repo):
        return Place(repo, None)
    found = resolve_repository(repo, base, job_branch=None)
    return Place(found.repo, found)


def ask(joined: Joined, planning: Planning, place: Place, *, as_json: bool, no_progress: bool, on_stderr: bool) -> int:
    """One job a question, until there is a plan; the plan is made for the commit that was found first. Returns the exit
    code: another than 0 where nothing is to follow, with a plan or without one. Raises `ProposalError`."""
    from orchestrator.access.proposing import hear_job
    from orchestrator.cli.attend import EXIT_CODES, attend_own_job, tell_end
    from orchestrator.cli.interrupts import Interrupts
    from orchestrator.cli.render import say
    from orchestrator.state.results import job_result

    repository = place.repository
    with Interrupts() as interrupts:
        while planning.proposal is None:
            ended = attend_own_job(
                joined,
                planning.next_job(),
                repository,
                interrupts,
                as_json=as_json,
                no_progress=no_progress,
                on_stderr=on_stderr,
            )
            repository = without_notes(repository)
            if ended.status != "completed":
                return tell_end(ended, as_json=as_json)
            with joined.fleet.engine.connect() as connection:
                hear_job(planning, job_result(connection, ended.id))
            if interrupts.happened():  # too late to cancel the job: its answer is kept, and nothing follows
                return EXIT_CODES["cancelled"]
            if planning.proposal is None and planning.rejected is not None:
                faults = planning.rejected.faults
                say(f"The answer has {plural(len(faults), 'fault')}, and is asked for again: {faults[0].message}")
    return 0


def without_notes(repository: RepositoryAtSubmission | None) -> RepositoryAtSubmission | None:
    """What was found of it, for a further job: what the user should know of it was said at the first."""
    return None if repository is None else replace(repository, notes=())


def tell(planning: Planning, output: Path, *, as_json: bool) -> None:
    """Write the plan's file and show what is in it."""
    from orchestrator.cli.documents import spending
    from orchestrator.cli.files import write_text
    from orchestrator.cli.plan_view import plan_document, print_plan
    from orchestrator.cli.render import print_json, say
    from orchestrator.plan.document import plan_as_yaml

    proposal = planning.proposal
    assert proposal is not None, "there is a plan to be told of"
    to_stdout = output == Path("-")
    repo = None if to_stdout else _repo_from(output, proposal.plan.plan.repo)
    text = plan_as_yaml(proposal.plan, head=_head(planning, proposal), repo=repo)
    for note in proposal.notes:
        say(note)
    if to_stdout:
        sys.stdout.write(text)
        return
    write_text(output, text)
    if as_json:
        document = {
            "type": "proposal",
            "file": str(output),
            "job_ids": list(proposal.job_ids),
            "spent": spending(proposal.spent),
            "notes": list(proposal.notes),
            "plan": plan_document(proposal.plan),
        }
        print_json(document, one_line=True)
        return
    print_plan(proposal.plan)
    print(f"\nThe plan is in {output}. Read it, its checks above all; then: orchestrator run {output}")


def _head(planning: Planning, proposal: Proposal) -> list[str]:
    agent = planning.terms.agent
    who = f"{agent.name} ({agent.config['model']})" if "model" in agent.config else agent.name
    cost = f", for {in_words(proposal.spent)}" if proposal.spent else ""
    answers = "" if planning.questions == 1 else f", asked {planning.questions} times"
    return [
        f"A plan for: {first_line(planning.terms.goal)[:200]}",
        f"Proposed by {who} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{answers}{cost} (job {proposal.job_ids[-1]}).",
        *proposal.notes,
        "Read it before you run it: checks are commands. `orchestrator validate` shows what would run.",
    ]


def _repo_from(output: Path, repo: str | None) -> str | None:
    """A file inside the repository says where that is from there, so that both can be moved; else None: as it is."""
    folder = output.absolute().parent.resolve()
    if repo is None or not folder.is_relative_to(repo):
        return None
    return os.path.relpath(repo, folder)
