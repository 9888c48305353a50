"""The adapter of Claude Code, on lines that the real program wrote (2.1.330, against a scripted model server)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.outcomes import Outcome
from orchestrator.plan.model import Permissions
from orchestrator.program_output import BoundedOutput
from orchestrator.supervisor import Ending
from workers.agents.claude_code import ClaudeCodeAgent
from workers.agents.protocol import AgentEnd, AgentRequest, EventKind, Launch

RECORDED = Path(__file__).parent.parent / "support" / "recorded" / "claude-2.1.330"
ONE_CALL = {"input_tokens": 1000, "output_tokens": 50, "cache_read_tokens": 300, "cache_write_tokens": 20}
TWO_CALLS = {kind: 2 * count for kind, count in ONE_CALL.items()}


def ending(exit_code: int | None, signal: int | None = None, text: str = "") -> Ending:
    return Ending(exit_code, signal, None, datetime.now(UTC), 1.0, BoundedOutput(text, len(text)))


def replay(name: str, exit_code: int | None, *, without_result: bool = False) -> AgentEnd:
    agent = ClaudeCodeAgent()
    lines = (RECORDED / f"{name}.txt").read_text().splitlines()
    events = [event for line in lines if (event := agent.read_line(*line.split("\t", 1))) is not None]
    if without_result:
        events = [event for event in events if event.kind is not EventKind.TERMINAL]
    written = "\n".join(line.split("\t", 1)[1] for line in lines)
    return agent.classify(ending(exit_code, text=written), events)


def _tool_result(content: str, *, is_error: bool = False) -> dict[str, Any]:
    block = {"type": "tool_result", "content": content, "is_error": is_error, "tool_use_id": "toolu_1"}
    return {"type": "user", "message": {"role": "user", "content": [block]}}


def launch(config: dict[str, Any], session_id: str | None = None, permissions: Permissions = "edit") -> Launch:
    request = AgentRequest(
        prompt="Do it.",
        prompt_file=Path("/attempt/prompt.md"),
        workspace=Path("/workspace"),
        state_dir=Path("/attempt/state"),
        config=config,
        title="A title",
        subtask_id=2,
        attempt_number=1,
        permissions=permissions,
        session_id=session_id,
    )
    return ClaudeCodeAgent().launch(request)


@pytest.mark.parametrize(
    ("name", "exit_code", "outcome", "error"),
    [
        ("success", 0, Outcome.COMPLETED, None),
        ("status-401", 1, Outcome.AUTH_ERROR, "Failed to authenticate. API Error: 401 scripted 401"),
        ("status-404", 1, Outcome.BAD_CONFIG, "There's an issue with the selected model"),
        ("status-400", 1, Outcome.FAILED, "API Error: 400 scripted 400"),
        ("status-429", 1, Outcome.RATE_LIMITED, "API Error: Request rejected (429)"),
        ("status-529", 1, Outcome.RATE_LIMITED, "API Error: "),
        ("status-500", 1, Outcome.PROVIDER_UNAVAILABLE, "API Error: 500"),
        ("connection-refused", 1, Outcome.PROVIDER_UNAVAILABLE, "API Error: Connection refused"),
        ("turn-limit", 1, Outcome.TURN_LIMIT, "Reached maximum number of turns (2)"),
        ("budget", 1, Outcome.BUDGET_EXCEEDED, "Reached maximum budget ($0.0001)"),
        ("permission-denied", 0, Outcome.PERMISSION_DENIED, "The agent was not permitted to use Bash"),
        ("refused-as-root", 1, Outcome.FAILED, "The agent ended with exit code 1, without a result line."),
    ],
)
def test_each_recorded_ending_has_its_outcome(name: str, exit_code: int, outcome: Outcome, error: str | None) -> None:
    end = replay(name, exit_code)
    assert end.outcome is outcome
    assert (end.error is None) if error is None else (end.error or "").startswith(error)


def test_success_carries_result_session_tokens_and_cost() -> None:
    end = replay("success", 0)
    assert (end.result, end.usage) == ("Done: it is there.", TWO_CALLS)
    assert end.cost_usd == pytest.approx(0.01032)
    assert end.session_id == "50bac33d-82ae-4ef8-90a0-eb4203638dde"


def test_an_exhausted_budget_is_counted_though_the_runs_own_usage_says_zero() -> None:
    end = replay("budget", 1)
    assert end.usage == ONE_CALL
    assert end.cost_usd == pytest.approx(0.00516)


def test_a_rate_limit_says_how_long_to_wait() -> None:
    assert replay("status-429", 1).retry_after_seconds == pytest.approx(7.361)
    assert replay("success", 0).retry_after_seconds is None


def test_without_a_result_line_exit_code_zero_is_no_success() -> None:
    end = replay("success", 0, without_result=True)
    assert (end.outcome, end.session_id is None) == (Outcome.FAILED, False)
    assert "without a result line" in (end.error or "")


def test_a_signal_after_a_happy_result_line_is_no_success() -> None:
    assert replay("success", None).outcome is Outcome.FAILED


def test_a_denied_command_is_forgiven_to_an_agent_that_did_its_work_otherwise() -> None:
    agent = ClaudeCodeAgent()
    denied, worked = (
        [agent.read_line(*line.split("\t", 1)) for line in (RECORDED / f"{name}.txt").read_text().splitlines()]
        for name in ("permission-denied", "success")
    )
    used = [event for event in worked if event and event.kind is EventKind.TOOL]
    # The two recordings use one id for their first call; here it is another call.
    renamed = [type(event)(event.kind, event.text, {"tools": {"toolu_other": "Write"}}) for event in used]
    events = [*renamed, *(event for event in denied if event)]
    assert renamed
    assert agent.classify(ending(0), events).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", '{"type": "result"}', '{"type": "assistant"}', '{"no": "type"}', "{" * 100, '{"type": ["x"]}'],
)
def test_a_line_of_any_shape_is_survived(line: str) -> None:
    agent = ClaudeCodeAgent()
    assert agent.read_line("stdout", line) is None
    assert agent.read_line("stderr", line) is None


def test_the_prompt_goes_through_stdin_and_never_through_the_command_line() -> None:
    started = launch({})
    assert started.stdin_file == Path("/attempt/prompt.md")
    assert "Do it." not in started.argv
    assert list(started.argv[:2]) == ["claude", "-p"]
    assert started.env["CLAUDE_CONFIG_DIR"].startswith("/attempt/state")


def test_the_configuration_becomes_flags() -> None:
    argv = launch(
        {
            "model": "sonnet",
            "max_turns": 7,
            "max_budget_usd": 1.5,
            "allowed_tools": ["Bash(pytest:*)", "WebFetch"],
            "path": "/opt/claude",
        },
        session_id="an-earlier-one",
        permissions="full",
    ).argv
    flags = dict(zip(argv[5::2], argv[6::2], strict=True))
    assert argv[0] == "/opt/claude"
    assert flags == {
        "--permission-mode": "bypassPermissions",
        "--model": "sonnet",
        "--max-turns": "7",
        "--max-budget-usd": "1.5",
        "--allowedTools": "Bash(pytest:*),WebFetch",
        "--resume": "an-earlier-one",
    }


def test_the_model_is_the_one_that_has_cost_most(tmp_path: Path) -> None:
    assert replay("success", 0).model == "claude-opus-5-5"
    assert replay("status-401", 1).model is None


def test_a_killed_run_leaves_its_tokens_and_its_model_in_the_transcript(tmp_path: Path) -> None:
    folder = tmp_path / "claude" / "projects" / "-workspace"
    folder.mkdir(parents=True)
    usage = {"input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 300}
    call = {"type": "assistant", "message": {"id": "m1", "model": "claude-opus-5-5", "usage": usage}}
    (folder / "s.jsonl").write_text("\n".join(json.dumps(one) for one in (call, call, {"type": "user"})))
    agent = ClaudeCodeAgent()
    request = AgentRequest("Do it.", tmp_path / "p", tmp_path, tmp_path, {}, "A title", 2, 1)
    end = agent.classify(ending(None, 9), agent.read_files(request))
    assert (end.usage, end.model) == ({**ONE_CALL, "cache_write_tokens": 0}, "claude-opus-5-5")
    assert end.cost_usd is None


@pytest.mark.parametrize(
    ("error", "unknown"),
    [("No conversation found with session ID: 87c9", True), ("Something else went wrong", False)],
)
def test_a_session_that_is_not_there_is_told_in_the_result(error: str, unknown: bool) -> None:
    result = {"type": "result", "subtype": "error_during_execution", "is_error": True, "errors": [error]}
    agent = ClaudeCodeAgent()
    event = agent.read_line("stdout", json.dumps(result))
    assert event is not None
    end = agent.classify(ending(1), [event])
    assert (end.outcome, end.session_unknown, end.error) == (Outcome.FAILED, unknown, error)


def test_a_killed_run_of_a_session_that_went_on_counts_its_own_calls_alone(tmp_path: Path) -> None:
    file = tmp_path / "claude/projects/of-the-first-run/s-1.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(_call("first"))
    one = AgentRequest("Go on.", tmp_path / "p", tmp_path, tmp_path, {}, "A title", 2, 2, session_id="s-1")
    agent = ClaudeCodeAgent()
    agent.launch(one)
    assert agent.read_files(one) == ()
    file.write_text(_call("first") + _call("second"))
    [event] = agent.read_files(one)
    assert event.data["usage"] == {**ONE_CALL, "cache_read_tokens": 0, "cache_write_tokens": 0}


def _call(name: str) -> str:
    usage = {"input_tokens": 1000, "output_tokens": 50}
    return json.dumps({"type": "assistant", "message": {"id": name, "model": "m", "usage": usage}}) + "\n"


TURNED_DOWN = {"type": "system", "subtype": "permission_denied", "tool_name": "Bash", "message": "It requires approval"}
LEFT_OUT = "Error: No such tool available: Edit. Edit is disabled for this session, in subagents as well as here."


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([TURNED_DOWN, _tool_result("It requires approval", is_error=True)], "Bash (It requires approval)"),
        ([_tool_result(LEFT_OUT, is_error=True)], "Edit (Edit is disabled for this session)"),
        ([TURNED_DOWN, _tool_result("File does not exist.", is_error=True)], "Bash (It requires approval)"),
        ([TURNED_DOWN, _tool_result("src")], None),
        ([_tool_result("File does not exist.", is_error=True)], None),
        ([{"type": "user", "message": {"role": "user", "content": "Go on."}}], None),
    ],
)
def test_what_its_permissions_refused_at_last_stands_in_its_lines(
    lines: list[dict[str, Any]], refused: str | None
) -> None:
    agent = ClaudeCodeAgent()
    result = {"type": "result", "subtype": "success", "is_error": False, "result": "Done."}
    events = [event for line in [*lines, result] if (event := agent.read_line("stdout", json.dumps(line)))]
    end = agent.classify(ending(0), events)
    assert (end.outcome, end.refused) == (Outcome.COMPLETED, refused)
