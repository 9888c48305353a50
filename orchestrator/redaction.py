"""Nothing secret is ever shown: passwords in URLs become `***`, and so do the keys that an agent was given."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import unquote

_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s:@]*)(?::(?P<password>[^/\s@]*))?@", re.IGNORECASE
)


_NO_PASSWORDS: Final = (None, "", "x-oauth-basic")
"""What stands after a token that takes the place of the user name."""
_SHORTEST_TOKEN: Final = 16
"""Characters. A shorter one before the `@` of a URL is somebody's name, which may stand in any text."""


def redact_url(text: str) -> str:
    """The text with the password of each URL in it replaced; a lone token before the `@` counts as a password."""

    def hide(match: re.Match[str]) -> str:
        if _is_lone_name(match):
            return f"{match['scheme']}***@"
        return match[0] if match["password"] is None else f"{match['scheme']}{match['user']}:***@"

    return _USERINFO.sub(hide, text)


def _is_lone_name(match: re.Match[str]) -> bool:
    return match["scheme"].lower().startswith("http") and match["password"] in _NO_PASSWORDS


HIDDEN: Final = "***"
_NAME_OF_A_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST_SECRET: Final = 8
"""Characters. A shorter value would be found in places that have nothing to do with it."""


class Redaction:
    """Takes the given values out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may be the beginning of another.
        long_enough = {value for value in secrets if len(value) >= _SHORTEST_SECRET}
        in_json = {json.dumps(value)[1:-1] for value in long_enough}
        values = sorted(long_enough | in_json, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, values))) if values else None

    def hide(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def secrets_of(environment: Mapping[str, str], names: Collection[str]) -> list[str]:
    """The values of those of the variables whose name says that they are secret."""
    return [environment[name] for name in names if name in environment and _NAME_OF_A_SECRET.search(name)]


def passwords_of(url: str | None) -> list[str]:
    """The password in a URL, if it has one, or the token in its place: as it stands there, and as it is meant."""
    found = _USERINFO.search(url or "")
    if not found:
        return []
    if _is_lone_name(found):
        secret = found["user"] if len(found["user"]) >= _SHORTEST_TOKEN else ""
    else:
        secret = found["password"] or ""
    return list(dict.fromkeys((secret, unquote(secret)))) if secret else []
