"""Ports that a command is about to take."""

from __future__ import annotations

import socket

from orchestrator.errors import ConfigurationError


def require_free_port(address: str, port: int, option: str) -> None:
    """Raise `ConfigurationError`, which names the option to change, where nobody can listen on that port now."""
    try:
        family, kind, protocol, _, at = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(at)
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} on {address} can't be used: {error.strerror or error}.",
            context={"address": address, "port": port},
            recovery=f"End what listens there, or name another port with {option}.",
        ) from error
