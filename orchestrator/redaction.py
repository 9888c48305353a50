"""Nothing secret is ever shown: passwords in URLs become `***`."""

from __future__ import annotations

import re

_USERINFO = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/\s:@]*)(?::(?P<password>[^/\s@]*))?@", re.IGNORECASE
)


def redact_url(text: str) -> str:
    """The text with the password of each URL in it replaced; a lone token before the `@` counts as a password."""

    def hide(match: re.Match[str]) -> str:
        if match["password"] is None:
            return f"{match['scheme']}***@" if match["scheme"].lower().startswith("http") else match[0]
        return f"{match['scheme']}{match['user']}:***@"

    return _USERINFO.sub(hide, text)
