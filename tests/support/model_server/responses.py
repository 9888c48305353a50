"""OpenAI's Responses, as Codex speaks them."""

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


class Responses:
    def read(self, path: str, request: Mapping[str, Any]) -> Asked:
        script: Script | None = None
        step = 0
        for item in request["input"]:
            if str(item.get("type")).endswith("_output"):
                step += 1
            elif item.get("role") == "user" and (found := find_script(texts(item))):
                script, step = found, 0
        tools = {tool["name"]: tool.get("parameters") for tool in request.get("tools") or () if "name" in tool}
        return Asked(request["model"], script, step, tools, bool(request.get("stream")))

    def answer(self, asked: Asked, step: Step) -> Answer:
        if step.kind == "say":
            return step.value
        line = shell_line(step)
        if "exec_command" in asked.tools:
            return ToolCall("exec_command", {"cmd": line, "yield_time_ms": 30000})
        if "shell_command" in asked.tools:
            return ToolCall("shell_command", {"command": line})
        return ToolCall("shell", {"command": ["bash", "-c", line]})

    def events(self, asked: Asked, answer: Answer) -> Sequence[str]:
        response = self.whole(asked, answer)
        item = response["output"][0]
        said = [
            {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ]
        return [event(part, str(part["type"])) for part in said]

    def whole(self, asked: Asked, answer: Answer) -> Any:
        if isinstance(answer, ToolCall):
            item: dict[str, Any] = {"type": "function_call", "id": _new_id("fc"), "call_id": _new_id("call")}
            item |= {"name": answer.name, "arguments": answer.json, "status": "completed"}
        else:
            item = {"type": "message", "id": _new_id("msg"), "role": "assistant", "status": "completed"}
            item["content"] = [{"type": "output_text", "text": answer, "annotations": []}]
        return {
            "id": _new_id("resp"),
            "object": "response",
            "status": "completed",
            "model": asked.model,
            "output": [item],
            "usage": {
                "input_tokens": UNCACHED + CACHED,
                "input_tokens_details": {"cached_tokens": CACHED},
                "output_tokens": OUTPUT,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": UNCACHED + CACHED + OUTPUT,
            },
        }

    def error(self, status: int) -> Any:
        return {"error": {"type": "scripted", "code": None, "message": f"scripted {status}"}}


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"
