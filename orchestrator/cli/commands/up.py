"""`orchestrator up`: a local stack that stays."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.settings import Settings

LOOK_SECONDS = 0.5


def up(
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=1, max=1000, metavar="N", help="Agents at once. Default: the setting, 8."),
    ] = None,
    flower_port: Annotated[int, typer.Option(min=1, max=65535, help="Flower's port on this machine.")] = 5555,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Do without Flower.")] = False,
) -> None:
    """Keep a local stack running until Ctrl-C.

    Database, broker, a dispatcher, a worker, and Flower with a password that is printed.
    """
    from orchestrator.cli.interrupts import Interrupts
    from orchestrator.cli.ports import require_free_port
    from orchestrator.cli.render import say
    from orchestrator.local.client import Need, local_stack
    from orchestrator.settings import load_settings

    settings = load_settings()
    if not no_flower:
        require_free_port("127.0.0.1", flower_port, "--flower-port, or do without: --no-flower")
    with local_stack(settings, need=Need.WORKERS, slots=workers, on_progress=say) as stack, Interrupts() as interrupts:
        print(f"The stack is up, its data is in {settings.state_dir}. Ctrl-C stops it.")
        print("Submit from another terminal: orchestrator submit PLAN", flush=True)
        with _flower(stack.settings, None if no_flower else flower_port) as flower:
            is_missed = False
            while not interrupts.take():
                stack.check()
                if flower is not None and flower.poll() is not None and not is_missed:
                    is_missed = True
                    say(f"warning: Flower has ended with exit code {flower.returncode}; the stack goes on without it.")
                time.sleep(LOOK_SECONDS)
        say("Stopping.")


@contextmanager
def _flower(settings: Settings, port: int | None) -> Iterator[subprocess.Popen[bytes] | None]:
    """Flower on the stack's services, for as long as this process lives."""
    if port is None:
        yield None
        return
    from orchestrator.cli import processes

    login = processes.new_login()
    program = processes.flower(address="127.0.0.1", port=port, basic_auth=login)
    log = settings.state_dir / "log" / "flower.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = processes.start_bound(program, processes.addresses(settings), output)
    print(f"Flower: http://127.0.0.1:{port}, user and password: {login}")
    sys.stdout.flush()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
