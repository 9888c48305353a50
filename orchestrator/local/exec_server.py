"""Become a server that ends when its parent ends: `python -I -S exec_server.py UID GID PARENT SIGNAL PROGRAM ARG…`.

A server that is no Python program can't watch a pipe, so the kernel tells it: PR_SET_PDEATHSIG. That is cleared by the
change of account, hence this order, which `subprocess`'s own `user=` can't give. It imports nothing of the project: it
runs with a bare interpreter, in 20 ms.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> None:
    uid, gid, parent, signal_number = (int(word) for word in words[:4])
    command = words[4:]
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("The parent ended before the server began.")
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.exit(f"{command[0]} can't be run: {error.strerror}.")


if __name__ == "__main__":
    main(sys.argv[1:])
