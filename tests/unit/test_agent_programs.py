"""The adapters of agents' programs, on lines and files that the real programs wrote (versions in their modules)."""

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
from workers.agents.aider import AiderAgent
from workers.agents.codex import CodexAgent
from workers.agents.gemini import GeminiAgent
from workers.agents.mini_swe_agent import MiniSweAgent
from workers.agents.opencode import OpencodeAgent
from workers.agents.protocol import Agent, AgentEnd, AgentRequest, EventKind, Launch
from workers.agents.provider import outcome_of_words

STARTED = '{"type":"thread.started","thread_id":"01a20a67"}'
SAID = '{"type":"item.completed","item":{"id":"item_3","type":"agent_message","text":"Done: it is there."}}'
TURN = (
    '{"type":"turn.completed","usage":{"input_tokens":3900,"cached_input_tokens":900,"cache_write_input_tokens":0,'
    '"output_tokens":150,"reasoning_output_tokens":0}}'
)
A_WARNING = '{"type":"item.completed","item":{"id":"item_0","type":"error","message":"a feature is under development"}}'
WAITING = '{"type":"error","message":"Reconnecting... waiting for network (Connection failed: error sending request)"}'
STEP = (
    '{"type":"step_finish","sessionID":"ses_1","part":{"reason":"%s","type":"step-finish",'
    '"tokens":{"total":1350,"input":1000,"output":50,"reasoning":0,"cache":{"write":0,"read":300}},"cost":0}}'
)
GEMINI_DONE = (
    '{"type":"result","status":"success","stats":{"total_tokens":4050,"input_tokens":3900,"output_tokens":150,'
    '"cached":900,"input":3000,"duration_ms":791,"tool_calls":2}}'
)
GEMINI_FAILED = (
    '{"type":"result","status":"error","error":{"type":"unknown","message":"[API Error: %s]"},"stats":{"input":0}}'
)


EXITED = "Chunk ID: eab770\nWall time: 0.0000 seconds\nProcess exited with code "


def turn_failed(message: str) -> str:
    return json.dumps({"type": "turn.failed", "error": {"message": message}})


def ending(exit_code: int | None, signal: int | None = None) -> Ending:
    return Ending(exit_code, signal, None, datetime.now(UTC), 1.0, BoundedOutput("", 0))


def request(folder: Path, permissions: Permissions = "edit", **config: Any) -> AgentRequest:
    (folder / "prompt.md").write_text("Do it.")
    return AgentRequest("Do it.", folder / "prompt.md", folder, folder, config, "A title", 2, 1, permissions)


def end_of(agent: Agent[Any], lines: list[str], exit_code: int | None, folder: Path | None = None) -> AgentEnd:
    """`lines` are stdout's, those of stderr begin with `!`."""
    read = [agent.read_line("stderr" if line[:1] == "!" else "stdout", line.removeprefix("!")) for line in lines]
    events = [event for event in read if event is not None]
    if folder is not None:
        events += agent.read_files(request(folder))
    return agent.classify(ending(exit_code, 9 if exit_code is None else None), events)


@pytest.mark.parametrize(
    ("agent", "lines", "exit_code", "outcome"),
    [
        (CodexAgent, [STARTED, SAID, TURN], 0, Outcome.COMPLETED),
        (CodexAgent, [STARTED, SAID, TURN], 1, Outcome.FAILED),
        (CodexAgent, [STARTED, SAID], 0, Outcome.FAILED),
        (CodexAgent, [STARTED], None, Outcome.FAILED),
        (CodexAgent, [STARTED, turn_failed("unexpected status 401 Unauthorized: scripted")], 1, Outcome.AUTH_ERROR),
        (CodexAgent, [STARTED, turn_failed("unexpected status 404 Not Found: scripted")], 1, Outcome.BAD_CONFIG),
        (
            CodexAgent,
            [turn_failed("exceeded retry limit, last status: 429 Too Many Requests")],
            1,
            Outcome.RATE_LIMITED,
        ),
        (CodexAgent, [turn_failed("unexpected status 529 <unknown status code>: x")], 1, Outcome.RATE_LIMITED),
        (
            CodexAgent,
            [turn_failed("We’re currently experiencing high demand, which may cause temporary errors.")],
            1,
            Outcome.PROVIDER_UNAVAILABLE,
        ),
        (
            CodexAgent,
            [turn_failed("stream disconnected before completion: Transport error: network error")],
            1,
            Outcome.PROVIDER_UNAVAILABLE,
        ),
        (CodexAgent, [STARTED, SAID, TURN, A_WARNING], 0, Outcome.COMPLETED),
        (CodexAgent, [STARTED, WAITING, WAITING], None, Outcome.PROVIDER_UNAVAILABLE),
        (CodexAgent, [STARTED, WAITING, WAITING, SAID, TURN], 0, Outcome.COMPLETED),
        (OpencodeAgent, [STEP % "tool-calls", STEP % "stop"], 0, Outcome.COMPLETED),
        (OpencodeAgent, [STEP % "tool-calls"], 0, Outcome.FAILED),
        (
            OpencodeAgent,
            ['{"type":"error","error":{"name":"APIError","data":{"message":"scripted","statusCode":401}}}'],
            1,
            Outcome.AUTH_ERROR,
        ),
        (GeminiAgent, [GEMINI_DONE], 0, Outcome.COMPLETED),
        (
            GeminiAgent,
            [GEMINI_FAILED % '{\\"error\\":{\\"code\\":401,\\"message\\":\\"scripted\\"}}'],
            145,
            Outcome.AUTH_ERROR,
        ),
        (GeminiAgent, [GEMINI_FAILED % "terminated"], 1, Outcome.PROVIDER_UNAVAILABLE),
        (GeminiAgent, ['{"type":"result","status":"error","error":"no more"}'], 1, Outcome.FAILED),
        (GeminiAgent, ['{"type":"result","status":"error"}'], 1, Outcome.FAILED),
        (GeminiAgent, [], 0, Outcome.FAILED),
        (GeminiAgent, [], 53, Outcome.TURN_LIMIT),
        (
            GeminiAgent,
            ["!Attempt 2 failed with status 429. Retrying with backoff... _ApiError: {}"],
            None,
            Outcome.RATE_LIMITED,
        ),
        (AiderAgent, ["litellm.AuthenticationError: AuthenticationError: scripted"], 0, Outcome.AUTH_ERROR),
        (
            AiderAgent,
            ["litellm.RateLimitError: scripted", "Retrying in 0.5 seconds...", "Tokens: 1.3k sent, 50 received."],
            0,
            Outcome.COMPLETED,
        ),
        (
            AiderAgent,
            ["litellm.InternalServerError: x", "Retrying in 4.0 seconds..."],
            None,
            Outcome.PROVIDER_UNAVAILABLE,
        ),
        (AiderAgent, ["Aider v0.86.2"], 0, Outcome.FAILED),
        (
            MiniSweAgent,
            ["!APIError: litellm.APIError: APIError: OpenAIException - scripted 529"],
            1,
            Outcome.PROVIDER_UNAVAILABLE,
        ),
        (
            AiderAgent,
            ["litellm.APIError: APIError: OpenrouterException - Insufficient credits, add more"],
            0,
            Outcome.AUTH_ERROR,
        ),
        (MiniSweAgent, ["!AuthenticationError: litellm.AuthenticationError: scripted"], 1, Outcome.AUTH_ERROR),
        (MiniSweAgent, [], 0, Outcome.FAILED),
    ],
)
def test_each_ending_has_its_outcome(
    agent: type[Agent[Any]], lines: list[str], exit_code: int | None, outcome: Outcome
) -> None:
    end = end_of(agent(), lines, exit_code)
    assert end.outcome is outcome
    assert (end.error is None) == (outcome is Outcome.COMPLETED)


def test_tokens_are_told_without_those_from_the_cache() -> None:
    three_calls = {"input_tokens": 3000, "output_tokens": 150, "cache_read_tokens": 900}
    assert end_of(CodexAgent(), [STARTED, SAID, TURN], 0).usage == {**three_calls, "cache_write_tokens": 0}
    assert end_of(GeminiAgent(), [GEMINI_DONE], 0).usage == three_calls
    steps = [STEP % "tool-calls", STEP % "tool-calls", STEP % "stop"]
    assert end_of(OpencodeAgent(), steps, 0).usage == {**three_calls, "cache_write_tokens": 0}


def test_codex_tells_the_tokens_of_a_killed_run_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "codex/sessions/2026/11/23"
    folder.mkdir(parents=True)
    lines = [
        {"payload": {"type": "token_count", "info": None}},
        {
            "payload": {
                "type": "token_count",
                "info": {"total_token_usage": {"input_tokens": 1300, "output_tokens": 50}},
            }
        },
    ]
    (folder / "rollout-1.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"cut')
    end = end_of(CodexAgent(), [STARTED], None, tmp_path)
    assert end.usage == {
        "input_tokens": 1300,
        "output_tokens": 50,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
    }


def test_codex_notes_a_calls_tokens_before_its_tool_runs_and_its_model(tmp_path: Path) -> None:
    folder = tmp_path / "codex/sessions/2026/11/24"
    folder.mkdir(parents=True)
    one, two = {"input_tokens": 1300, "output_tokens": 50}, {"input_tokens": 2600, "output_tokens": 100}
    lines: list[dict[str, Any]] = [
        {"type": "turn_context", "payload": {"model": "gpt-5-codex"}},
        {"type": "token_usage_record", "payload": {"usage": one, "thread_token_usage": one}},
        {"type": "event_msg", "payload": {"type": "token_count", "info": {"total_token_usage": one}}},
        {"type": "token_usage_record", "payload": {"usage": one, "thread_token_usage": two}},
        {"type": "token_usage_record", "payload": {"thread_token_usage": {"of": "another shape"}}},
    ]
    (folder / "rollout-1.jsonl").write_text("\n".join(map(json.dumps, lines)))
    end = end_of(CodexAgent(), [STARTED], None, tmp_path)
    assert (end.usage, end.model) == ({**two, "cache_read_tokens": 0, "cache_write_tokens": 0}, "gpt-5-codex")
    failed = end_of(CodexAgent(), [STARTED, turn_failed("unexpected status 429 x")], 1, tmp_path)
    assert failed.usage == end.usage, "what earlier calls have used stands"


def test_a_turn_of_codex_that_failed_before_any_answer_has_used_nothing() -> None:
    end = end_of(CodexAgent(), [STARTED, turn_failed("unexpected status 401 Unauthorized: x")], 1)
    assert end.usage is not None
    assert not any(end.usage.values())
    assert end_of(CodexAgent(), [STARTED], None).usage is None, "a killed one may have"


def test_gemini_names_its_model_as_it_begins() -> None:
    init = '{"type":"init","session_id":"s1","model":"gemini-2.5-pro"}'
    assert end_of(GeminiAgent(), [init, GEMINI_DONE], 0).model == "gemini-2.5-pro"
    assert end_of(GeminiAgent(), ['{"type":"init","session_id":"s1"}', GEMINI_DONE], 0).model is None


@pytest.mark.parametrize(
    ("status", "limits", "outcome"),
    [
        ("Submitted", {}, Outcome.COMPLETED),
        ("LimitsExceeded", {"step_limit": 2, "cost_limit": 9}, Outcome.TURN_LIMIT),
        ("LimitsExceeded", {"step_limit": 0, "cost_limit": 0.1}, Outcome.BUDGET_EXCEEDED),
        ("RateLimitError", {}, Outcome.RATE_LIMITED),
        ("SomethingElse", {}, Outcome.FAILED),
    ],
)
def test_mini_swe_agent_tells_its_end_in_its_trajectory(
    tmp_path: Path, status: str, limits: dict[str, float], outcome: Outcome
) -> None:
    usage = {"completion_tokens": 50, "prompt_tokens": 1300, "prompt_tokens_details": {"cached_tokens": 300}}
    info = {
        "exit_status": status,
        "submission": "Done.",
        "model_stats": {"instance_cost": 0.25, "api_calls": 2},
        "config": {"agent": limits},
    }
    messages = [
        {"role": "system"},
        {"extra": {"response": {"usage": usage}}},
        {"extra": {"response": {"usage": usage}}},
    ]
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/traj.json").write_text(json.dumps({"info": info, "messages": messages}))
    end = end_of(MiniSweAgent(), [], 0, tmp_path)
    assert (end.outcome, end.cost_usd) == (outcome, 0.25)
    assert end.usage == {"input_tokens": 2000, "output_tokens": 100, "cache_read_tokens": 600}


@pytest.mark.parametrize("agent", [CodexAgent, GeminiAgent, OpencodeAgent, AiderAgent, MiniSweAgent])
@pytest.mark.parametrize("line", ["", "{", "[]", '{"type": "error"}', '{"type": []}', '{"no": 1}', "{" * 2000])
def test_a_line_of_any_shape_is_survived(agent: type[Agent[Any]], line: str) -> None:
    assert agent().read_line("stdout", line) is None
    assert agent().read_line("stderr", line) is None


@pytest.mark.parametrize(
    ("agent", "permissions", "words"),
    [
        (CodexAgent, "read-only", "--sandbox read-only"),
        (CodexAgent, "edit", "--sandbox workspace-write"),
        (CodexAgent, "full", "--dangerously-bypass-approvals-and-sandbox"),
        (GeminiAgent, "read-only", "--approval-mode plan"),
        (GeminiAgent, "edit", "--approval-mode auto_edit"),
        (GeminiAgent, "full", "--approval-mode yolo"),
        (AiderAgent, "read-only", "--chat-mode ask"),
        (MiniSweAgent, "full", "--yolo"),
    ],
)
def test_permissions_become_flags_and_the_prompt_is_in_no_argument(
    tmp_path: Path, agent: type[Agent[Any]], permissions: Permissions, words: str
) -> None:
    launch = started(agent, tmp_path, permissions)
    assert words in " ".join(launch.argv)
    assert "Do it." not in launch.argv


@pytest.mark.parametrize(("permissions", "bash"), [("read-only", "deny"), ("edit", "deny"), ("full", "allow")])
def test_opencode_is_told_its_permissions_in_its_configuration(
    tmp_path: Path, permissions: Permissions, bash: str
) -> None:
    told = json.loads(started(OpencodeAgent, tmp_path, permissions).env["OPENCODE_CONFIG_CONTENT"])
    assert told["permission"]["bash"] == bash


def started(agent: type[Agent[Any]], folder: Path, permissions: Permissions) -> Launch:
    return agent().launch(request(folder, permissions))


def test_words_without_a_provider_in_them_are_a_failure_of_the_agent() -> None:
    assert outcome_of_words("the tests are red") is Outcome.FAILED


NO_ROLLOUT = "Error: thread/resume: thread/resume failed: no rollout found for thread id 87c9 (code -32600)"


@pytest.mark.parametrize(
    ("agent", "exit_code", "words", "unknown"),
    [
        (CodexAgent(), 1, NO_ROLLOUT, True),
        (CodexAgent(), 1, "Error: something else", False),
        (GeminiAgent(), 42, "Error resuming session: No previous sessions found for this project.", True),
        (GeminiAgent(), 1, "Error: something else", False),
    ],
)
def test_a_program_that_does_not_know_the_session_says_so(
    agent: Agent[Any], exit_code: int, words: str, unknown: bool
) -> None:
    ended = Ending(exit_code, None, None, datetime.now(UTC), 1.0, BoundedOutput(words, len(words)))
    end = agent.classify(ended, [])
    assert (end.outcome, end.session_unknown) == (Outcome.FAILED, unknown)


def test_codex_counts_the_call_before_a_kill_though_its_later_sums_leave_it_out(tmp_path: Path) -> None:
    """The lines of a session that was killed in its second call's tool, and gone on with."""
    folder = tmp_path / "codex/sessions/2026/11/23"
    folder.mkdir(parents=True)
    lines = [_record(1), _sum(1), _record(2), _record(3), _sum(2), _record(4), _sum(3)]
    (folder / "rollout-1.jsonl").write_text("\n".join(map(json.dumps, lines)))
    four = {"input_tokens": 4000, "output_tokens": 200, "cache_read_tokens": 0, "cache_write_tokens": 0}
    lagging = TURN.replace('"cached_input_tokens":900', '"cached_input_tokens":0')
    assert end_of(CodexAgent(), [STARTED, SAID, lagging], 0, tmp_path).usage == four
    assert end_of(CodexAgent(), [STARTED], None, tmp_path).usage == four


READ_ONLY_FILE = "/bin/bash: line 1: .git/x: Read-only file system"
REFUSED = ("echo x > .git/x", f"{EXITED}1\nOutput:\n{READ_ONLY_FILE}\n")
A_PATCH = ("apply_patch <<'EOF'\n*** Begin Patch", "patch rejected: writing outside of the project; rejected")
WENT_WELL = ("ls", f"{EXITED}0\nOutput:\nsrc\n")
FAILED = ("pytest", f"{EXITED}1\nOutput:\n1 failed, Process exited with code 0\n")


@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        ([REFUSED], f"`echo x > .git/x` ({READ_ONLY_FILE})"),
        ([WENT_WELL, A_PATCH], f"`apply_patch <<'EOF'` ({A_PATCH[1]})"),
        ([REFUSED, FAILED], f"`echo x > .git/x` ({READ_ONLY_FILE})"),
        ([REFUSED, WENT_WELL], None),
        ([FAILED], None),
        ([("touch /x; true", f"{EXITED}0\nOutput:\n{READ_ONLY_FILE}\n")], None),
        ([("cat /etc/shadow", f"{EXITED}1\nOutput:\ncat: /etc/shadow: Permission denied\n")], None),
        ([("serve", f"Process running with session ID 4\nOutput:\n{READ_ONLY_FILE}\n")], None),
        ([("no output", ["of", "words"])], None),
    ],
)
def test_what_codexs_sandbox_refused_at_last_stands_in_its_session(
    calls: list[tuple[str, Any]], refused: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "codex/sessions/2026/11/29"
    folder.mkdir(parents=True)
    lines = [line for number, (command, output) in enumerate(calls) for line in _call(number, command, output)]
    (folder / "rollout-1.jsonl").write_text("\n".join(map(json.dumps, [*lines, _record(1)])))
    end = end_of(CodexAgent(), [STARTED, SAID, TURN], 0, tmp_path)
    assert (end.outcome, end.refused) == (Outcome.COMPLETED, refused)
    assert CodexAgent().read_files(request(tmp_path, "full"))[-1].kind is EventKind.USAGE  # there is no sandbox


def _call(number: int, command: str, output: Any) -> list[dict[str, Any]]:
    arguments = json.dumps({"cmd": command, "yield_time_ms": 30000})
    call = {"type": "function_call", "name": "exec_command", "arguments": arguments, "call_id": f"call_{number}"}
    result = {"type": "function_call_output", "call_id": f"call_{number}", "output": output}
    return [{"type": "response_item", "payload": payload} for payload in (call, result)]


NO_TOOL = {"type": "tool_not_registered", "message": 'Tool "run_shell_command" not found.'}
BY_POLICY = {"type": "policy_violation", "message": "Tool execution denied by policy."}
OUTSIDE = {"type": "invalid_tool_params", "message": "Path not in workspace: Attempted path"}


@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        ([("run_shell_command", {"command": "make"}, NO_TOOL)], "`make` (it has no shell then)"),
        ([("write_file", {"file_path": "a.txt"}, BY_POLICY)], "`a.txt` (Tool execution denied by policy.)"),
        ([("write_file", {"file_path": "/a.txt"}, OUTSIDE)], None),
        ([("no_such_tool", {}, NO_TOOL)], None),
        ([("write_file", {"file_path": "a.txt"}, BY_POLICY), ("read_file", {"file_path": "b"}, None)], None),
    ],
)
def test_what_geminis_mode_refused_at_last_stands_in_its_lines(
    calls: list[tuple[str, dict[str, str], dict[str, str] | None]], refused: str | None
) -> None:
    lines = []
    for number, (tool, parameters, error) in enumerate(calls):
        lines.append({"type": "tool_use", "tool_name": tool, "tool_id": str(number), "parameters": parameters})
        status = {"status": "error", "error": error} if error else {"status": "success", "output": ""}
        lines.append({"type": "tool_result", "tool_id": str(number), **status})
    end = end_of(GeminiAgent(), [*map(json.dumps, lines), GEMINI_DONE], 0)
    assert (end.outcome, end.refused) == (Outcome.COMPLETED, refused)


def _record(calls: int) -> dict[str, Any]:
    return {"type": "token_usage_record", "payload": {"thread_token_usage": _tokens(calls)}}


def _sum(calls: int) -> dict[str, Any]:
    return {"payload": {"type": "token_count", "info": {"total_token_usage": _tokens(calls)}}}


def _tokens(calls: int) -> dict[str, int]:
    return {"input_tokens": 1000 * calls, "output_tokens": 50 * calls}
