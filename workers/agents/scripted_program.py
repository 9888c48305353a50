"""The program behind the agent `scripted`: does what its script says, step by step, and nothing else.

    python scripted_program.py SCRIPT.json ATTEMPT_NUMBER [SESSION]

Standard library only, so that it starts in a few milliseconds. Runs in the workspace: paths are relative to it.
The steps are documented in `workers.agents.scripted`. With SESSION it goes on with that session, whose file lies beside
the script; its first line is then, as after the step `session`, `{"event": "session", "session_id": …}`. Its last line
on stdout is its terminal event, one JSON object: `{"event": "end", "outcome": …, "error": …, "result": …, "usage": …,
"cost_usd": …, "model": …, "session_id": …, "retry_after_seconds": …}`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

TERMINATED_EXIT_CODE: Final = 143


class ScriptedRun:
    """One run of a script: each public method is a step, called with the step's value and its further keys."""

    def __init__(self, attempt_number: int, folder: Path, resumed: str | None) -> None:
        self._attempt_number = attempt_number
        self._folder = folder
        self._end: dict[str, Any] = {"event": "end", "outcome": "completed"}
        self._resumed = resumed
        self._interval_logs: list[str] = []

    def run(self, script: Iterable[Mapping[str, Any]]) -> None:
        try:
            if self._resumed is not None:
                if not self._session_file(self._resumed).exists():
                    self.refuse_session(True)
                self.session(self._resumed)
            self._steps(script)
            self._finish(0)
        finally:
            for path in self._interval_logs:
                self._log("end", path)

    def _steps(self, script: Iterable[Mapping[str, Any]]) -> None:
        for step in script:
            (name, value), *options = step.items()
            getattr(self, name)(value, **dict(options))

    def _finish(self, code: int, **end: Any) -> NoReturn:
        _write_raw(f"{json.dumps({**self._end, **end})}\n".encode())
        sys.exit(code)

    def write(self, path: str, content: str = "") -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)

    def append(self, path: str, content: str = "") -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a") as file:
            file.write(content)

    def delete(self, path: str) -> None:
        Path(path).unlink()

    def commit(self, message: str) -> None:
        identity = ("-c", "user.name=Scripted Agent", "-c", "user.email=scripted@agent.invalid")
        subprocess.run(["git", "add", "--all"], check=True)
        subprocess.run(["git", *identity, "commit", "--quiet", "--message", message], check=True)

    def print(self, text: str) -> None:
        _write_raw(f"{text}\n".encode())

    def stderr(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")

    def flood(self, count: int) -> None:
        """One line of `count` bytes."""
        block = b"x" * 65536
        for _ in range(count // len(block)):
            _write_raw(block)
        _write_raw(block[: count % len(block)] + b"\n")

    def invalid_utf8(self, _: bool) -> None:
        _write_raw(b"before \xff\xfe\xc3 after\n")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def hang(self, _: bool) -> None:
        while True:
            signal.pause()

    def wait_for(self, path: str) -> None:
        """Until the file exists."""
        while not Path(path).exists():
            time.sleep(0.01)

    def throttled(self, seconds: float) -> None:
        self.print(f"provider: turned away for {seconds} s")

    def ignore_sigterm(self, _: bool) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def spawn(self, seconds: float) -> None:
        """A grandchild in a session of its own, re-parented to init, that holds our pipes open and ignores TERM."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(seconds)
            os._exit(0)
        os.wait()

    def log_interval(self, path: str) -> None:
        """Append a line now and one at our end: who ran when, for tests that count what was in flight."""
        self._interval_logs.append(path)
        self._log("start", path)

    def _log(self, what: str, path: str) -> None:
        names = {"job": "ORCHESTRATOR_JOB", "subtask": "ORCHESTRATOR_SUBTASK", "token": "ORCHESTRATOR_ATTEMPT"}
        ids = {key: os.environ.get(name, "") for key, name in names.items()}
        line = {"what": what, "at": time.time(), "pid": os.getpid(), "attempt": self._attempt_number, **ids}
        # One write in append mode: lines of many agents in one file stay whole.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)

    def on_resume(self, steps: Iterable[Mapping[str, Any]]) -> None:
        if self._resumed is not None:
            self._steps(steps)

    def on_attempt(self, scripts: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        self._steps(scripts.get(str(self._attempt_number), scripts.get("else", [])))

    def usage(self, tokens: Mapping[str, int], cost_usd: float | None = None, model: str | None = None) -> None:
        self._end.update(usage=tokens, cost_usd=cost_usd, model=model)

    def session(self, session_id: str) -> None:
        """Begin it, or go on with it: its file has a line for each run."""
        self._end["session_id"] = session_id
        with self._session_file(session_id).open("a") as file:
            file.write(json.dumps({"attempt": self._attempt_number}) + "\n")
        _write_raw(f"{json.dumps({'event': 'session', 'session_id': session_id})}\n".encode())

    def remember(self, text: str) -> None:
        """A line in the session's file."""
        with self._session_file(self._end["session_id"]).open("a") as file:
            file.write(json.dumps({"remembered": text}) + "\n")

    def recall(self, path: str) -> None:
        """What the session's file holds, into a file of the workspace."""
        Path(path).write_text(self._session_file(self._end["session_id"]).read_text())

    def refuse_session(self, _: bool) -> None:
        if self._resumed is not None:
            self._finish(1, outcome="failed", error=f"there is no session {self._resumed}", session_unknown=True)

    def _session_file(self, session_id: str) -> Path:
        return self._folder / f"session-{session_id}.jsonl"

    def result(self, text: str) -> None:
        self._end["result"] = text

    def fail(self, how: int | str) -> NoReturn:
        """A number: exit with it and say nothing. Words: say that we failed, and why."""
        if isinstance(how, int):
            sys.exit(how)
        self._finish(1, outcome="failed", error=how)

    def end(self, outcome: str, error: str | None = None, retry_after_seconds: float | None = None) -> NoReturn:
        self._finish(
            0 if outcome == "completed" else 1, outcome=outcome, error=error, retry_after_seconds=retry_after_seconds
        )

    def exit_by_signal(self, name: str) -> None:
        number = signal.Signals[f"SIG{name}"]
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _write_raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED_EXIT_CODE)  # through `finally`: the interval logs get their end


def main(script_file: str, attempt_number: str, session_id: str | None = None) -> None:
    signal.signal(signal.SIGTERM, _terminate)
    script = Path(script_file)
    ScriptedRun(int(attempt_number), script.parent, session_id).run(json.loads(script.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
