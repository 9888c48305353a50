"""The server: one thread a connection, one counter a script."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.support.model_server.anthropic import Anthropic
from tests.support.model_server.chat import Chat
from tests.support.model_server.gemini import Gemini
from tests.support.model_server.protocol import TITLE, TOKENS, Asked, Wire
from tests.support.model_server.responses import Responses
from tests.support.model_server.script import Fault, Script

_WIRES: Final[dict[str, Wire]] = {
    "/messages": Anthropic(),
    "/responses": Responses(),
    "/chat/completions": Chat(),
    "ateContent": Gemini(),
}
"""By what a request's path ends with, its query aside."""


class ModelServer:
    """Listens from its making to `close`. `url` has no path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, list[float]] = defaultdict(list)
        self._faults: Counter[tuple[str, int]] = Counter()
        self._tokens: dict[str, Counter[str]] = defaultdict(Counter)
        self.authorizations: set[str] = set()
        self.asides: list[str] = []
        """Paths that were asked for and that no protocol knows."""
        self.closing = threading.Event()
        self._http = _Server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def requests(self, script: Script) -> int:
        """How often a program has asked for an answer of this script, faults included."""
        return len(self.request_times(script))

    def request_times(self, script: Script) -> list[float]:
        """When it did so: seconds since the epoch, in their order."""
        with self._lock:
            return list(self._requests[script.nonce])

    def faults(self, script: Script) -> int:
        """How often one of its faults has fired."""
        with self._lock:
            return sum(count for (nonce, _), count in self._faults.items() if nonce == script.nonce)

    def tokens(self, script: Script) -> dict[str, int]:
        """What its complete answers have counted."""
        with self._lock:
            return dict(self._tokens[script.nonce])

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def note_request(self, script: Script, step: int) -> Fault | None:
        """Count it; the fault that is due, if any."""
        with self._lock:
            self._requests[script.nonce].append(time.time())
            for number, fault in enumerate(script.faults):
                key = (script.nonce, number)
                if fault.step == step and (fault.times is None or self._faults[key] < fault.times):
                    self._faults[key] += 1
                    return fault
        return None

    def note_answer(self, script: Script) -> None:
        with self._lock:
            self._tokens[script.nonce].update(TOKENS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, model: ModelServer) -> None:
        self.model = model
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Nothing: the counters tell."""

    def do_GET(self) -> None:
        self._aside()

    def do_HEAD(self) -> None:
        self._aside()

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        wire = next((wire for end, wire in _WIRES.items() if path.endswith(end)), None)
        if wire is None:
            self._aside()
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            self._serve(wire, wire.read(path, json.loads(body)))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _aside(self) -> None:
        self.server.model.asides.append(f"{self.command} {self.path}")
        self._send_json(404, {"error": {"message": "not here"}})

    def _serve(self, wire: Wire, asked: Asked) -> None:
        model, script = self.server.model, asked.script
        for name in ("x-api-key", "authorization", "x-goog-api-key"):
            if value := self.headers.get(name):
                model.authorizations.add(value)
        fault = None if script is None else model.note_request(script, asked.step)
        if fault is not None and fault.hang == "before_first_byte":
            self._hang()
            return
        if fault is not None and fault.status is not None:
            self._send_json(fault.status, wire.error(fault.status), fault.retry_after_seconds)
            return
        answer = TITLE if script is None else wire.answer(asked, script.step(asked.step))
        if asked.stream:
            self._stream(wire.events(asked, answer), script, fault)
            return
        cut = fault is not None and fault.drop
        self._send_json(200, wire.whole(asked, answer), cut=cut)
        if cut:
            self._drop()
        elif script is not None:
            model.note_answer(script)

    def _stream(self, events: Sequence[str], script: Script | None, fault: Fault | None) -> None:
        """Part by part, as far as the fault lets it come."""
        self._begin_stream()
        dropped = fault is not None and fault.drop
        # Dropped in its midst: with an answer that lacks only its last word a program may be content.
        if first := events[: len(events) // 2 if dropped else -1]:
            self._send_part("".join(first))
        if dropped:
            self._drop()
            return
        if fault is not None and fault.hang == "before_last_event":
            self._hang()
            return
        self._send_part(events[-1])
        if script is not None:
            self.server.model.note_answer(script)
        if fault is not None and fault.hang == "after_last_event":
            self._hang()
            return
        self._send_part("")

    def _send_json(self, status: int, value: Any, retry_after_seconds: int | None = None, *, cut: bool = False) -> None:
        """`cut`: half of it only."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after_seconds is not None:
            self.send_header("Retry-After", str(retry_after_seconds))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_part(self, text: str) -> None:
        """An empty part ends the stream."""
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _hang(self) -> None:
        """Say nothing until the other side goes away."""
        self.close_connection = True
        self.connection.settimeout(0.2)
        while not self.server.model.closing.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1):
                    return

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
