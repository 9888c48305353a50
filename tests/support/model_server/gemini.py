"""Google's Gemini, as its command line speaks it."""

from __future__ import annotations

import json
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


class Gemini:
    def read(self, path: str, request: Mapping[str, Any]) -> Asked:
        script: Script | None = None
        step = 0
        for content in request.get("contents") or ():
            for part in content["parts"]:
                if "functionResponse" in part:
                    step += 1
                elif content.get("role") == "user" and (found := find_script(texts(part))):
                    script, step = found, 0
        declared = [one for tool in request.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        model, _, method = path.rpartition("/")[2].partition(":")
        tools = {one["name"]: one.get("parametersJsonSchema") for one in declared}
        return Asked(model, script, step, tools, method.startswith("streamGenerateContent"))

    def answer(self, asked: Asked, step: Step) -> Answer:
        if step.kind == "say":
            return step.value
        if step.kind == "write" and "write_file" in asked.tools:
            return ToolCall("write_file", {"file_path": step.value, "content": step.content})
        return ToolCall("run_shell_command", {"command": shell_line(step), "description": "do it"})

    def events(self, asked: Asked, answer: Answer) -> Sequence[str]:
        return [event(self.whole(asked, answer))]

    def whole(self, asked: Asked, answer: Answer) -> Any:
        part: dict[str, Any] = {"text": answer}
        if isinstance(answer, ToolCall):
            part = {"functionCall": {"name": answer.name, "args": json.loads(answer.json)}}
        return {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
            "modelVersion": asked.model,
            "usageMetadata": {
                "promptTokenCount": UNCACHED + CACHED,
                "cachedContentTokenCount": CACHED,
                "candidatesTokenCount": OUTPUT,
                "totalTokenCount": UNCACHED + CACHED + OUTPUT,
            },
        }

    def error(self, status: int) -> Any:
        return {"error": {"code": status, "message": f"scripted {status}", "status": "SCRIPTED"}}
