"""The program behind a plugin: one object, one prompt, one clean-up.

    python plugin_program.py REQUEST.json

Runs in the workspace. The plugin's own output, and that of what it starts, goes to stderr: stdout carries nothing but the
terminal event (`workers.agents.end_line`), so that nothing an agent prints can pass for it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import Any, Final

MOST_CHARACTERS: Final = 100_000
"""Of a result or an error: the terminal event is one line, and a line has its limit."""
TERMINATED_EXIT_CODE: Final = 143


def main(request_file: str) -> None:
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _terminate)
    request = json.loads(Path(request_file).read_text())
    sys.path[:] = request["path"]
    end = _run(request)
    report.write(json.dumps({"event": "end", **end}) + "\n")
    report.flush()
    sys.exit(0 if end["outcome"] == "completed" else 1)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """The terminal event. An exception of the plugin is its failure; its traceback goes to the log."""
    plugin = None
    end: dict[str, Any] = {}
    try:
        try:
            plugin = _class_of(request["origin"])()
            plugin.initialize(request["config"])
            result = plugin.send_prompt(Path(request["prompt_file"]).read_text(), request["context"])
            end = {"outcome": "completed", "result": None if result is None else _short(result)}
        finally:
            if plugin is not None:
                end |= {"usage": plugin.usage and dict(plugin.usage), "cost_usd": plugin.cost_usd}
                _clean_up(plugin)
    except Exception as error:
        traceback.print_exc()
        end |= _failure(error)
    return end


def _clean_up(plugin: Any) -> None:
    """What goes wrong here undoes no work that was done and paid for."""
    try:
        plugin.cleanup()
    except Exception:
        traceback.print_exc()


def _class_of(origin: str) -> Any:
    module, _, name = origin.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))


def _failure(error: Exception) -> dict[str, Any]:
    # Imported once the path is the worker's.
    from orchestrator.errors import AgentException  # noqa: PLC0415
    from orchestrator.outcomes import Outcome  # noqa: PLC0415

    failure: dict[str, Any] = {"outcome": "failed", "error": _short(f"{type(error).__name__}: {error}")}
    if isinstance(error, AgentException):
        failure |= {"error": _short(error), "retry_after_seconds": error.retry_after_seconds}
        # `completed` is nothing that one raises, and an unknown word would be no end at all.
        with contextlib.suppress(ValueError):
            named = Outcome(error.outcome)
            failure["outcome"] = "failed" if named is Outcome.COMPLETED else str(named)
    return failure


def _short(said: object) -> str:
    return str(said)[-MOST_CHARACTERS:]


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED_EXIT_CODE)  # through `finally`: the plugin cleans up


if __name__ == "__main__":
    main(*sys.argv[1:])
