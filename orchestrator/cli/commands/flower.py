"""`orchestrator flower`: Celery's monitor on this project's application."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def flower(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
    address: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a proxy with TLS.")
    ] = "127.0.0.1",
) -> None:
    """Watch the fleet in Flower.

    It reads FLOWER_* variables. Without FLOWER_BASIC_AUTH a password is made and printed.
    """
    from orchestrator.access.connect import require_services
    from orchestrator.cli import processes
    from orchestrator.cli.ports import require_free_port
    from orchestrator.settings import load_settings

    require_services(load_settings(), "Flower")
    require_free_port(address, port, "--port")
    login = None if _has_login() else processes.new_login()
    if login is not None:
        print(f"Flower: http://{address}:{port}, user and password: {login}")
    processes.become(processes.flower(address=address, port=port, basic_auth=login))


def _has_login() -> bool:
    """Whether Flower was told how people log in; it reads its options from such variables itself."""
    return any(os.environ.get(name) for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH"))
