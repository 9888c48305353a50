"""OpenAI's Chat Completions, as aider, mini-swe-agent and opencode speak them."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.model_server.protocol import (
    CACHED,
    OUTPUT,
    UNCACHED,
    Answer,
    Asked,
    ToolCall,
    event,
    shell_line,
    texts,
)
from tests.support.model_server.script import Script, Step, find_script

_SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""How mini-swe-agent's model says that it has done: a command whose output begins with these words."""


class Chat:
    def read(self, path: str, request: Mapping[str, Any]) -> Asked:
        script: Script | None = None
        step = 0
        for message in request["messages"]:
            if message["role"] == "tool":
                step += 1
            elif message["role"] == "user" and (found := find_script(texts(message["content"]))):
                script, step = found, 0
        tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in request.get("tools") or ()}
        return Asked(request["model"], script, step, tools, bool(request.get("stream")))

    def answer(self, asked: Asked, step: Step) -> Answer:
        if not asked.tools:  # aider: the answer holds the whole file
            return f"{step.value}\n```\n{step.content}```\n" if step.kind == "write" else step.value
        if set(asked.tools) == {"bash"}:  # mini-swe-agent
            last_words = f"{_SUBMIT}; echo {shlex.quote(step.value)}"
            return ToolCall("bash", {"command": last_words if step.kind == "say" else shell_line(step)})
        if step.kind == "say":
            return step.value
        return ToolCall("bash", {"command": shell_line(step), "description": "do it"})

    def events(self, asked: Asked, answer: Answer) -> Sequence[str]:
        whole = self.whole(asked, answer)
        choice = whole["choices"][0]
        delta = dict(choice["message"])
        if "tool_calls" in delta:
            delta["tool_calls"] = [{**call, "index": 0} for call in delta["tool_calls"]]
        head = {**whole, "object": "chat.completion.chunk"}
        usage = head.pop("usage")
        return [
            event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}),
            event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}),
            event({**head, "choices": [], "usage": usage}),
            event("[DONE]"),
        ]

    def whole(self, asked: Asked, answer: Answer) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        if isinstance(answer, ToolCall):
            function = {"name": answer.name, "arguments": answer.json}
            message["tool_calls"] = [{"id": _new_id("call"), "type": "function", "function": function}]
        else:
            message["content"] = answer
        reason = "tool_calls" if isinstance(answer, ToolCall) else "stop"
        return {
            "id": _new_id("chatcmpl"),
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {
                "prompt_tokens": UNCACHED + CACHED,
                "completion_tokens": OUTPUT,
                "total_tokens": UNCACHED + CACHED + OUTPUT,
                "prompt_tokens_details": {"cached_tokens": CACHED},
            },
        }

    def error(self, status: int) -> Any:
        return {"error": {"type": "scripted", "code": str(status), "message": f"scripted {status}"}}


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(10)}"
