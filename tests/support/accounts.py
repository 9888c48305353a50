"""Programs under a plain account, also where the tests run as root."""

from __future__ import annotations

import os
import pwd

from orchestrator.local.postgres import Account


def plain_account() -> Account:
    """Nobody's, where we are root; else our own."""
    if os.geteuid() != 0:
        return Account("", os.geteuid(), os.getegid())
    entry = pwd.getpwnam("nobody")
    return Account("nobody", entry.pw_uid, entry.pw_gid)


def becoming(account: Account) -> list[str]:
    """A command that becomes the program after it, under that account. It may read every file, for the interpreter often
    lives below /root; no more than that."""
    if account.uid == os.geteuid():
        return []
    return [
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
        "--",
    ]
