"""What a command and the keeper say to each other: one JSON object a line, over a Unix socket.

The command says what it needs (`Request`). The keeper answers `{"progress": …}` while it works at it, at least every
`HEARTBEAT_SECONDS`, then `{"ready": {…urls}}` or `{"error": {message, context, recovery}}`; an error may follow later
too. The connection itself is the claim: as long as it stands the stack stands. A command that ends shuts its side and
reads on; the keeper closes when that command's share is gone, which for the last one means that everything stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from orchestrator.errors import LocalStackError

HEARTBEAT_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 20.0
"""A keeper that was silent for so long does not work any more."""
SOCKET_NAME: Final = "keeper.sock"


@dataclass(frozen=True)
class Request:
    """What a command needs. A URL that is given is used, one that is `None` is for the keeper to provide."""

    version: str
    needs_broker: bool
    slots: int
    """Agents at once; 0: neither dispatcher nor worker is needed."""
    database_url: str | None
    broker_url: str | None

    def line(self) -> bytes:
        return encode(asdict(self))


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def error_message(error: LocalStackError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "context": {name: str(value) for name, value in error.context.items()},
            "recovery": error.recovery,
        }
    }
