"""User names and passwords in the URLs of repositories, kept from git's command lines: whoever has an account on a machine,
an agent too, can read those of every process. Git is told the URL without them, and has them by variables.

A name without a password, `https://NAME@host/…`, may be a token, which is the whole secret, or somebody's name for whom
git's own helpers know a password. Git itself, given such a URL, tries it without one and then asks; so there are two ways
to run a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

_WITH_USER: Final = re.compile(
    r"(?P<scheme>https?)://(?P<user>[^/@:]*)(?P<colon>:(?P<password>[^/@]*))?@(?P<host>[^/?#]+)"
)
_HELPER: Final = '!f() {{ test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "$GIT_URL_USER_{n}" "$GIT_URL_PASSWORD_{n}"; }}; f'
_REFUSED: Final = "Authentication failed for"


@dataclass
class Credentials:
    """What takes the place of a command's words: `args`, with more of git's `settings` and `variables`."""

    args: list[str] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def kept_apart(args: Sequence[str], environment: Mapping[str, str]) -> list[Credentials]:
    """The ways to run a git command in that environment, its words that are URLs without user and password. A way is
    tried when the server `refused` the one before."""
    settings_there = int(environment.get("GIT_CONFIG_COUNT") or 0)
    ways = [_kept_apart(args, settings_there, asking=False)]
    return [*ways, _kept_apart(args, settings_there, asking=True)] if any(map(_is_lone_name, args)) else ways


def refused(stderr: str) -> bool:
    return _REFUSED in stderr


def _is_lone_name(arg: str) -> bool:
    found = _WITH_USER.match(arg)
    return found is not None and found["colon"] is None


def _kept_apart(args: Sequence[str], settings_there: int, *, asking: bool) -> Credentials:
    """`asking`: whoever has no password in the URL is asked about, of git's own helpers. His name is a setting that stands
    on no command line, after those that the environment has in the same way."""
    kept = Credentials()
    for number, arg in enumerate(args):
        found = _WITH_USER.match(arg)
        if found is None:
            kept.args.append(arg)
            continue
        where = f"{found['scheme']}://{found['host']}"
        kept.args.append(where + arg[found.end() :])
        if asking and _is_lone_name(arg):
            kept.variables |= {
                f"GIT_CONFIG_KEY_{settings_there}": f"credential.{where}.username",
                f"GIT_CONFIG_VALUE_{settings_there}": unquote(found["user"]),
            }
            settings_there += 1
            kept.variables["GIT_CONFIG_COUNT"] = str(settings_there)
            continue
        key = f"credential.{where}.helper"
        kept.settings += [(key, ""), (key, _HELPER.format(n=number))]  # the empty one: nobody else is asked before
        kept.variables |= {
            f"GIT_URL_USER_{number}": unquote(found["user"]),
            f"GIT_URL_PASSWORD_{number}": unquote(found["password"] or ""),
        }
    return kept
