"""Whether an attempt goes on with an earlier one's session, and which programs can be asked to."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.outcomes import RESUMED_AFTER, Outcome
from orchestrator.state.checkpoints import Checkpoint, Earlier
from orchestrator.state.transitions.claims import Claim
from workers.agents.aider import AiderAgent
from workers.agents.claude_code import ClaudeCodeAgent
from workers.agents.codex import CodexAgent
from workers.agents.gemini import GeminiAgent
from workers.agents.mini_swe_agent import MiniSweAgent
from workers.agents.opencode import OpencodeAgent
from workers.agents.protocol import Agent
from workers.agents.scripted import ScriptedAgent
from workers.agents.shell import ShellAgent
from workers.resuming import MAX_STALLS, why_not

BASE = "b" * 40


def claim(base_commit: str = BASE) -> Claim:
    unused: dict[str, Any] = dict.fromkeys(Claim.__dataclass_fields__)
    return Claim(**{**unused, "base_commit": base_commit})


def earlier(outcome: Outcome = Outcome.INTERRUPTED, stalls: int = 0) -> Earlier:
    return Earlier(1, BASE, outcome, Checkpoint("s-1", b"", None, stalls))


@pytest.mark.parametrize("outcome", sorted(RESUMED_AFTER))
def test_whoever_was_cut_off_goes_on(outcome: Outcome) -> None:
    assert why_not(claim(), earlier(outcome)) is None


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - RESUMED_AFTER))
def test_whoever_was_judged_starts_anew(outcome: Outcome) -> None:
    assert why_not(claim(), earlier(outcome)) == f"the attempt ended as {outcome}"


def test_a_group_that_has_moved_on_starts_anew() -> None:
    assert why_not(claim("c" * 40), earlier()) == "the group begins at another commit by now"


def test_a_session_that_runs_out_of_time_again_and_again_is_left() -> None:
    assert why_not(claim(), earlier(Outcome.TIMEOUT, MAX_STALLS)) is None
    assert why_not(claim(), earlier(Outcome.TIMEOUT, MAX_STALLS + 1)) == "it has run out of time 3 times in a row"


@pytest.mark.parametrize(
    "agent",
    [
        *(AiderAgent, ClaudeCodeAgent, CodexAgent, GeminiAgent, MiniSweAgent, OpencodeAgent),
        *(ScriptedAgent, ShellAgent),
    ],
)
def test_a_program_can_resume_where_its_sessions_files_are_known(agent: type[Agent[Any]]) -> None:
    assert agent.capabilities.resume == bool(agent.session_files)
    assert all("{session_id" in pattern for pattern in agent.session_files)
