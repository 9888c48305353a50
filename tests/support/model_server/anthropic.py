"""Anthropic's Messages, as Claude Code speaks them."""

from __future__ import annotations

import secrets
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

_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic:
    def read(self, path: str, request: Mapping[str, Any]) -> Asked:
        script: Script | None = None
        step = 0
        for message in request["messages"]:
            blocks = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
            for block in blocks:
                if block.get("type") == "tool_result":
                    step += 1
                elif message["role"] == "user" and (found := find_script(texts(block))):
                    script, step = found, 0
        tools = {tool["name"]: tool.get("input_schema") for tool in request.get("tools") or ()}
        return Asked(request["model"], script, step, tools, bool(request.get("stream")))

    def answer(self, asked: Asked, step: Step) -> Answer:
        if step.kind == "say":
            return step.value
        if step.kind == "write" and "Write" in asked.tools:
            return ToolCall("Write", {"file_path": step.value, "content": step.content})
        return ToolCall("Bash", {"command": shell_line(step), "description": "do it"})

    def events(self, asked: Asked, answer: Answer) -> Sequence[str]:
        message = self._message(asked, [], None)
        message["usage"] = {**message["usage"], "output_tokens": 1}
        if isinstance(answer, ToolCall):
            block: dict[str, Any] = {"type": "tool_use", "id": _new_id("toolu"), "name": answer.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": answer.json}
        else:
            block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": answer}
        said = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": _reason(answer), "stop_sequence": None},
                "usage": {"output_tokens": OUTPUT},
            },
            {"type": "message_stop"},
        ]
        return [event(part, str(part["type"])) for part in said]

    def whole(self, asked: Asked, answer: Answer) -> Any:
        if isinstance(answer, ToolCall):
            block: dict[str, Any] = {"type": "tool_use", "id": _new_id("toolu"), "name": answer.name}
            block["input"] = dict(answer.arguments)
        else:
            block = {"type": "text", "text": answer}
        return self._message(asked, [block], _reason(answer))

    def error(self, status: int) -> Any:
        kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": f"scripted {status}"}}

    def _message(self, asked: Asked, content: list[Any], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": _new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": UNCACHED,
                "cache_read_input_tokens": CACHED,
                "cache_creation_input_tokens": 0,
                "output_tokens": OUTPUT,
            },
        }


def _reason(answer: Answer) -> str:
    return "tool_use" if isinstance(answer, ToolCall) else "end_turn"


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"
