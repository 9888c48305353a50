"""Asking for a plan at the command line: what can't be brought about with real processes."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from orchestrator.agent_names import known_agents
from orchestrator.cli.propose import Place, ask
from orchestrator.errors import Fault
from orchestrator.plan.model import AgentSpec
from orchestrator.plan.planning import Planning
from orchestrator.plan.proposal import Proposal, Rejected, Terms
from orchestrator.settings import load_settings


@pytest.mark.parametrize("with_plan", [True, False], ids=["with a plan", "without one"])
def test_nothing_follows_an_interruption_that_came_too_late_to_cancel(
    with_plan: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a further question nor, with --run, the plan."""
    asked = []

    def attend_own_job(*_: Any, **__: Any) -> Any:
        asked.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        return SimpleNamespace(id="job", status="completed")

    def hear_job(planning: Planning, _: Any) -> None:
        planning.proposal = MagicMock(Proposal) if with_plan else None
        planning.rejected = Rejected("no", (Fault("No."),))

    monkeypatch.setattr("orchestrator.cli.attend.attend_own_job", attend_own_job)
    monkeypatch.setattr("orchestrator.access.proposing.hear_job", hear_job)
    monkeypatch.setattr("orchestrator.state.results.job_result", MagicMock())
    planning = Planning(Terms("goal", AgentSpec(name="claude-code")), known_agents(load_settings()))
    code = ask(MagicMock(), planning, Place(".", None), as_json=False, no_progress=False, on_stderr=False)
    assert (code, len(asked)) == (130, 1)
    assert (planning.proposal is not None) == with_plan
