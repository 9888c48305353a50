"""Process 1 of a container, beside one process of the fleet: `python -I -S init_program.py CHILD`.

It reaps what agents leave behind, passes signals on, and ends as the child ended. An init that the container's engine
starts does the same, and holds the container's variables, the addresses of the fleet among them: each process of the
account could read them there (`orchestrator.closed_process`). This one was started without any. Nothing is installed for
the bare interpreter that runs it.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Blocked by whoever starts this, so that none is lost meanwhile."""


def main(child: int) -> int:
    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
