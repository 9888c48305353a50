"""What an agent is told: read from the database, put into words by `orchestrator.plan.prompt`."""

from __future__ import annotations

from sqlalchemy import text

from orchestrator.dispatch.fleet import Fleet
from orchestrator.plan.model import ResolvedSubtask
from orchestrator.plan.prompt import DependencyResult, build_prompt, build_prompt_to_go_on
from orchestrator.state.engine import translated
from orchestrator.state.transitions.claims import Claim
from workers.resuming import Resumption


def brief(fleet: Fleet, claim: Claim, subtask: ResolvedSubtask, resumed: Resumption | None) -> str:
    """The prompt of this attempt. Raises `DatabaseUnavailable`."""
    if resumed is not None:  # its session has the whole one
        return build_prompt_to_go_on(subtask=subtask, cut_off_by=resumed.cut_off_by, feedback=claim.feedback)
    with translated(), fleet.engine.connect() as connection:
        rows = connection.execute(
            text(
                """
                SELECT s.subtask_id, s.group_number, s.title, s.spec, s.result, s.commit, a.files_changed
                FROM subtasks s
                LEFT JOIN LATERAL (
                    SELECT files_changed FROM attempts
                    WHERE job_id = s.job_id AND subtask_id = s.subtask_id AND status = 'completed'
                    ORDER BY number DESC LIMIT 1
                ) a ON true
                WHERE s.job_id = :job_id AND s.subtask_id <> :subtask_id
                  AND (s.group_number = :group_number OR s.subtask_id = ANY(:depends_on))
                ORDER BY s.subtask_id
                """
            ),
            {
                "job_id": claim.job_id,
                "subtask_id": claim.subtask_id,
                "group_number": claim.group_number,
                "depends_on": list(subtask.depends_on),
            },
        ).all()
    return build_prompt(
        job_title=claim.job_title,
        goal=claim.goal,
        subtask=subtask,
        siblings=[ResolvedSubtask.model_validate(row.spec) for row in rows if row.group_number == claim.group_number],
        dependencies=[
            DependencyResult(row.subtask_id, row.title, row.result, row.commit, tuple(row.files_changed or ()))
            for row in rows
            if row.group_number != claim.group_number
        ],
        feedback=claim.feedback,
        has_repository=claim.repo is not None,
    )
