"""A repository behind a password, or a token: git's own `http-backend`, on 127.0.0.1.

It looks at every process of the machine while it is asked, because the client's are alive then: `seen_in` has the command
lines in which the secret stood.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

USER: Final = "me@example.org"
PASSWORD: Final = "hunter2/ä%"
IN_A_URL: Final = "me%40example.org:hunter2%2F%C3%A4%25"
TOKEN: Final = "hunter2_0123456789abcdef"


class GitServer:
    """Serves the bare repositories below a folder to `USER` with `PASSWORD`, and to `TOKEN` without one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answered = 0
        self.seen_in: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.server = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def url(self, repository: str, login: str = IN_A_URL) -> str:
        return f"http://{login}@127.0.0.1:{self._http.server_port}/{repository}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def look(self) -> None:
        words = {PASSWORD.encode(), IN_A_URL.partition(":")[2].encode(), TOKEN.encode()}
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = file.read_bytes()
            except OSError:
                continue  # it has ended
            if any(word in said for word in words):
                self.seen_in.add(said.replace(b"\0", b" ").decode(errors="replace"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server: GitServer = self.server.server  # type: ignore[attr-defined]
        server.look()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = [base64.b64encode(login.encode()).decode() for login in (f"{USER}:{PASSWORD}", f"{TOKEN}:")]
        if self.headers.get("Authorization") not in {f"Basic {login}" for login in wanted}:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        server.answered += 1
        path, _, query = self.path.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": USER,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        backend = subprocess.run(
            ["git", "http-backend"], input=body, env=os.environ | variables, capture_output=True, check=True
        )
        head, _, content = backend.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().splitlines()]
        status = next((value for name, value in fields if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
