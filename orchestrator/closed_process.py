"""A process that holds credentials of the fleet is closed to the other processes of its account.

The addresses of the fleet, with their passwords, stand in the environment of a worker, and agents run under the same
account: to the kernel each is as good as the other, and `/proc/<pid>/environ`, `mem` and `fd` would be open to an agent,
as would `ptrace`. PR_SET_DUMPABLE takes that away from everybody but root. Whatever is forked inherits it, a program that
is started does not: hence the call in each of our programs, and no credential in the environment of the others
(`environment.own_programs_environment`). It also means no core dump, and a debugger as root only.

Imports nothing but the standard library, so that it can be the first thing that a process does.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def close_to_others() -> None:
    """Close this process, as early as possible in its life: until then it can be read. Elsewhere than on Linux, and where
    the call is refused, nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
