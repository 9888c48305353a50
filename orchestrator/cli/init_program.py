"""Process 1 of a container, beside one process of the fleet: `python -I -S init_program.py CHILD`.

It reaps what agents leave behind, passes signals on, and ends as the child ended. An init that the container's engine
starts does the same, and holds the container's variables, the addresses of the fleet among them: each process of the
account could read them there (`orchestrator.closed_process`). This one was started without any. Nothing is installed for
the bare interpreter that runs it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
AWAITED = PASSED_ON | {signal.SIGCHLD}
"""Blocked by whoever starts this: none is lost, before it looks or between two looks."""


def main(child: int) -> int:
    while True:
        number = signal.sigwait(AWAITED)
        if number in PASSED_ON:
            with suppress(ProcessLookupError):
                os.kill(child, number)
        for pid, status in ended_children():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def ended_children() -> Iterator[tuple[int, int]]:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
