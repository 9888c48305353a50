"""What the program `orchestrator` runs first."""

from __future__ import annotations

import signal
from typing import NoReturn

from orchestrator.closed_process import close_to_others


def main() -> NoReturn:
    """Import the command line and run it. An interruption meanwhile ends the process at once, and without a traceback."""
    close_to_others()  # its variables name the fleet, and it may become a worker
    heeds_interruptions = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeds_interruptions:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from orchestrator.cli.main import main as run_command_line

    if heeds_interruptions:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command_line()
