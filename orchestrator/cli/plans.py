"""Read a plan for a command: options in place of what it says, then every rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.render import say

if TYPE_CHECKING:
    from orchestrator.plan.model import ValidatedPlan
    from orchestrator.settings import Settings
    from orchestrator.submitted_repository import RepositoryAtSubmission


def local_repository(plan: ValidatedPlan) -> RepositoryAtSubmission | None:
    """What the plan's repository is, where it is on this machine; looked at before anything is started for the plan.

    Raises `RepositoryError` where it can't be used. At remotes the submission looks: they take their time to answer.
    """
    from orchestrator.submitted_repository import is_url, resolve_repository

    repo = plan.plan.repo
    if repo is None or is_url(repo):
        return None
    return resolve_repository(repo, plan.plan.base, job_branch=None)


def read_plan(
    path: Path, settings: Settings, *, agent: str | None = None, repo: str | None = None, tell_warnings: bool = True
) -> ValidatedPlan:
    """The plan of a file, valid. Raises `PlanError` with every fault.

    `agent` takes the place of `defaults.agent`: a subtask that names its own agent keeps it. `repo` takes the place of
    the plan's `repo`; a path is meant from the working directory.
    """
    from orchestrator.agent_names import known_agents
    from orchestrator.plan.model import AgentSpec
    from orchestrator.plan.validate import load_plan, validate_plan

    known = known_agents(settings)
    validated = load_plan(path, known_agents=known, prices=settings.prices)
    plan = validated.plan
    if agent is not None:
        defaults = plan.defaults.model_copy(update={"agent": AgentSpec(name=agent)})
        plan = plan.model_copy(update={"defaults": defaults})
    if repo is not None:
        plan = plan.model_copy(update={"repo": repo})
    if plan is not validated.plan:
        validated = validate_plan(plan, known_agents=known, source=str(path), prices=settings.prices)
    if tell_warnings:
        for warning in validated.warnings:
            say(f"warning: {warning}")
    return validated
