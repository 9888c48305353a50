"""What a model's provider says when it does not answer: pure, and the same for every program.

Some programs tell the provider's status, some only put it into words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Provider

ANTHROPIC: Final = Provider("anthropic", ("ANTHROPIC_API_KEY",))
OPENAI: Final = Provider("openai", ("OPENAI_API_KEY",), "OPENAI_API_BASE")
OPENROUTER: Final = Provider("openrouter", ("OPENROUTER_API_KEY",))
DEEPSEEK: Final = Provider("deepseek", ("DEEPSEEK_API_KEY",))
GEMINI: Final = Provider("gemini", ("GEMINI_API_KEY",))

_BY_STATUS: Final[Mapping[int, Outcome]] = {
    401: Outcome.AUTH_ERROR,
    403: Outcome.AUTH_ERROR,
    404: Outcome.BAD_CONFIG,  # the model does not exist, or not for this key
    408: Outcome.PROVIDER_UNAVAILABLE,
    429: Outcome.RATE_LIMITED,
    529: Outcome.RATE_LIMITED,  # overloaded
}
_STATUS: Final = re.compile(
    r"(?:\bstatus(?: ?code)?|\bError(?: code)?|\bHTTP|\"code\")[: ]+(?P<status>[45]\d\d)\b", re.IGNORECASE
)
_WORDS: Final[tuple[tuple[re.Pattern[str], Outcome], ...]] = tuple(
    (re.compile(words, re.IGNORECASE), outcome)
    for words, outcome in (
        (r"RateLimitError|rate limit|too many requests|quota|usage limit|overloaded", Outcome.RATE_LIMITED),
        (
            r"AuthenticationError|PermissionDeniedError|invalid api key|unauthorized|insufficient credit|payment required",
            Outcome.AUTH_ERROR,
        ),
        (r"NotFoundError|model .*not found|model .*does not exist", Outcome.BAD_CONFIG),
        (
            # An `APIError` of litellm had a status without a name of its own there, 520 to 529 for instance.
            r"\bAPIError\b|InternalServerError|ServiceUnavailable|BadGateway|APIConnectionError|high demand"
            r"|stream disconnected|stream closed|error sending request|connection (?:failed|refused|reset|error)"
            r"|fetch failed|API Error: terminated|network|ECONNREFUSED|ECONNRESET|timed? ?out",
            Outcome.PROVIDER_UNAVAILABLE,
        ),
    )
)


def outcome_of_status(status: int) -> Outcome:
    """What an HTTP status of the provider means for the attempt; FAILED for a request that it did not understand."""
    return _BY_STATUS.get(status, Outcome.PROVIDER_UNAVAILABLE if status >= 500 else Outcome.FAILED)


def outcome_of_words(words: str) -> Outcome:
    """The same of an error in words. A status in them decides; FAILED where they speak of no provider."""
    if found := _STATUS.search(words):
        return outcome_of_status(int(found["status"]))
    return next((outcome for pattern, outcome in _WORDS if pattern.search(words)), Outcome.FAILED)
