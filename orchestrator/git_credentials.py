"""Passwords in the URLs of repositories, kept from git's command lines: whoever has an account on a machine, an agent too,
can read those of every process. Git is told the URL without them, and asks a helper that has them by variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

_WITH_PASSWORD: Final = re.compile(r"(?P<scheme>https?)://(?P<user>[^/@:]*):(?P<password>[^/@]*)@(?P<host>[^/?#]+)")
_HELPER: Final = '!f() {{ test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "$GIT_URL_USER_{n}" "$GIT_URL_PASSWORD_{n}"; }}; f'


@dataclass
class Credentials:
    """What takes the place of a command's words: `args`, with more of git's `settings` and `variables`."""

    args: list[str] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def kept_apart(args: Sequence[str]) -> Credentials:
    """The words of a git command, those that are URLs without user and password."""
    kept = Credentials()
    for number, arg in enumerate(args):
        found = _WITH_PASSWORD.match(arg)
        if found is None:
            kept.args.append(arg)
            continue
        where = f"{found['scheme']}://{found['host']}"
        kept.args.append(where + arg[found.end() :])
        key = f"credential.{where}.helper"
        kept.settings += [(key, ""), (key, _HELPER.format(n=number))]  # the empty one: nobody else is asked before
        kept.variables |= {
            f"GIT_URL_USER_{number}": unquote(found["user"]),
            f"GIT_URL_PASSWORD_{number}": unquote(found["password"]),
        }
    return kept
