"""The agent `scripted`: deterministic, free of charge, and able to fail in every way that real agents were seen to.

    agent:
      name: scripted
      script:
        - {write: models/user.py, content: "class User: ...\\n"}
        - {on_attempt: {1: [{fail: "not today"}], else: [{print: "second try"}]}}
        - {result: "The model is there."}

A real process (`scripted_program.py`) carries out the steps in order, in the workspace, and reports its end in a line of
its own, as real agents do.

| step | does |
|---|---|
| `write: PATH, content: TEXT` · `append: PATH, content: TEXT` · `delete: PATH` | files; missing folders are made |
| `commit: MESSAGE` | commits everything |
| `print: TEXT` · `stderr: TEXT` | one line |
| `flood: BYTES` · `invalid_utf8: true` | one line of that size; a line that is no UTF-8 |
| `sleep: SECONDS` · `hang: true` · `wait_for: PATH` | waits so long; for ever; until the file exists |
| `throttled: SECONDS` | says that its provider has turned it away and wants it to wait so long, and goes on |
| `ignore_sigterm: true` | from here on only KILL ends it |
| `spawn: SECONDS` | leaves a process in a session of its own, which holds the pipes open and ignores TERM |
| `log_interval: PATH` | appends a JSON line now and one at the end: `what` (start, end), `at`, `token`, `job`, `subtask`, `attempt` |
| `on_attempt: {NUMBER: STEPS, else: STEPS}` | other steps for other attempts |
| `session: ID` · `remember: TEXT` · `recall: PATH` | begins a session with that id, or goes on with it; a line in its file; its file into the workspace |
| `on_resume: STEPS` · `refuse_session: true` | where it goes on with the session of an earlier attempt: other steps; says that it knows no such session |
| `usage: {input_tokens: N, …}, cost_usd: USD, model: NAME` · `result: TEXT` | what the end will report |
| `fail: TEXT` · `fail: EXIT_CODE` | ends: says that it failed; exits without a word |
| `end: OUTCOME, error: TEXT, retry_after_seconds: N` | ends with that outcome, for instance `rate_limited` |
| `exit_by_signal: NAME` | ends by `KILL`, `SEGV`, … |
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field, field_validator

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider
from orchestrator.supervisor import Ending
from workers.agents.end_line import end_by_line, read_own_line
from workers.agents.protocol import (
    Agent,
    AgentConfig,
    AgentEnd,
    AgentEvent,
    AgentRequest,
    Capabilities,
    Counted,
    EventKind,
    Launch,
)

_PROGRAM: Final = Path(__file__).with_name("scripted_program.py")

THROTTLED: Final = re.compile(r"provider: turned away for (?P<seconds>[\d.]+) s")

_Types = type | tuple[type, ...]
_NUMBER: Final = (int, float)
_STEPS: Final[Mapping[str, tuple[_Types, Mapping[str, _Types]]]] = {
    "write": (str, {"content": str}),
    "append": (str, {"content": str}),
    "delete": (str, {}),
    "commit": (str, {}),
    "print": (str, {}),
    "stderr": (str, {}),
    "flood": (int, {}),
    "invalid_utf8": (bool, {}),
    "sleep": (_NUMBER, {}),
    "hang": (bool, {}),
    "wait_for": (str, {}),
    "throttled": (_NUMBER, {}),
    "ignore_sigterm": (bool, {}),
    "spawn": (_NUMBER, {}),
    "log_interval": (str, {}),
    "on_attempt": (dict, {}),
    "usage": (dict, {"cost_usd": _NUMBER, "model": str}),
    "session": (str, {}),
    "remember": (str, {}),
    "recall": (str, {}),
    "refuse_session": (bool, {}),
    "on_resume": (list, {}),
    "result": (str, {}),
    "fail": ((int, str), {}),
    "end": (str, {"error": str, "retry_after_seconds": _NUMBER}),
    "exit_by_signal": (str, {}),
}
"""Each step: the type of its value, and its further keys with theirs."""


class ScriptedConfig(AgentConfig):
    script: list[dict[str, Any]] = Field(default_factory=list, description="the steps, carried out in order")
    provider: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._:-]+$",
        description="a name: it keeps to that provider's limits, with the key in SCRIPTED_API_KEY, if there is one",
    )
    model: str | None = Field(None, description="a model of that provider")

    @field_validator("script")
    @classmethod
    def _known_steps(cls, script: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return _checked_all(script)


def _checked(step: Any) -> dict[str, Any]:
    """The step with its own key first: JSON in a database does not keep the order of keys."""
    names = [name for name in step if name in _STEPS] if isinstance(step, dict) else []
    if len(names) != 1:
        raise ValueError(f"{step!r} is no step; a step is a mapping with one of the keys {', '.join(_STEPS)}")
    name = names[0]
    value_types, option_types = _STEPS[name]
    types = {name: value_types, **option_types}
    for key, value in step.items():
        if key not in types:
            raise ValueError(f'the step {name} has no key "{key}"')
        if not isinstance(value, types[key]):
            raise ValueError(f"{value!r} can't be the value of {key} in the step {name}")  # noqa: TRY004 - pydantic's protocol
    value = step[name]
    if name == "on_attempt":
        value = {str(number): _checked_all(steps) for number, steps in value.items()}
    if name == "on_resume":
        value = _checked_all(value)
    if name == "end" and value not in set(Outcome):
        raise ValueError(f"{value} is no outcome")
    return {name: value, **{key: option for key, option in step.items() if key != name}}


def _checked_all(steps: Any) -> list[dict[str, Any]]:
    if not isinstance(steps, list):
        raise ValueError(f"{steps!r} is no list of steps")  # noqa: TRY004 - pydantic's protocol
    return [_checked(step) for step in steps]


class ScriptedAgent(Agent[ScriptedConfig]):
    name = "scripted"
    expects_changes = False
    capabilities = Capabilities(resume=True, tokens=Counted.PER_RUN, cost=Counted.PER_RUN)
    config_model = ScriptedConfig
    session_files = ("session-{session_id}.jsonl",)

    @classmethod
    def providers_of(cls, config: Mapping[str, Any]) -> Sequence[Provider]:
        return [Provider(config["provider"], ("SCRIPTED_API_KEY",))] if config.get("provider") else ()

    def launch(self, request: AgentRequest) -> Launch:
        script_file = request.state_dir / "script.json"
        script_file.write_text(json.dumps(self.config(request).script))
        # -I -S: no site-packages and no PYTHON* variables, hence a start in milliseconds.
        argv = [sys.executable, "-I", "-S", str(_PROGRAM), str(script_file), str(request.attempt_number)]
        return Launch([*argv, request.session_id] if request.session_id else argv)

    def read_line(self, stream: str, line: str) -> AgentEvent | None:
        if stream == "stdout" and (told := THROTTLED.fullmatch(line)):
            return AgentEvent(EventKind.THROTTLED, data={"retry_after_seconds": float(told["seconds"])})
        return read_own_line(stream, line)

    def classify(self, ending: Ending, events: Sequence[AgentEvent]) -> AgentEnd:
        return end_by_line(ending, events)
