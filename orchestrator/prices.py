"""What a model's tokens cost: the table `prices.toml`, with the setting `prices` laid over it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

_FILE: Final = Path(__file__).with_name("prices.toml")
_MILLION: Final = 1_000_000
_VERSION: Final = re.compile(r"([-@]\d{8}|-\d{4}-\d{2}-\d{2}|-latest|-preview(-\d{2}-\d{2,4})?)$")
"""What providers append to a model's name for one edition of it, at the same price."""

_Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """USD per million tokens of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Usd
    output: _Usd
    cache_read: _Usd = 0.0
    cache_write: _Usd = 0.0

    def of(self, usage: Mapping[str, int]) -> float:
        """What these tokens cost, in USD. Kinds that have no price of their own cost nothing."""
        by_kind = {
            "input_tokens": self.input,
            "output_tokens": self.output,
            "cache_read_tokens": self.cache_read,
            "cache_write_tokens": self.cache_write,
        }
        return sum(usage.get(kind, 0) * price for kind, price in by_kind.items()) / _MILLION


Prices = Mapping[str, Price]
"""By the model's name, as providers write it: without their own name, without a date."""


@cache
def list_prices() -> Prices:
    """The table that comes with this version."""
    table = tomllib.loads(_FILE.read_text())["prices"]
    return MappingProxyType({model: Price(**price) for model, price in table.items()})


def price_of(model: str | None, own: Prices) -> Price | None:
    """The price of a model as an agent's program or a plan names it (`openai/gpt-5.2`, `claude-haiku-4-5-20251001`).

    `own` are the user's prices, which come first. None: there is no price for that name, or no name.
    """
    for name in _names(model or ""):
        if found := own.get(name) or list_prices().get(name):
            return found
    return None


def _names(model: str) -> Iterator[str]:
    """The exact name first, then the more general ones."""
    yield model
    last = model.rpartition("/")[2]
    yield last
    yield _VERSION.sub("", last)
