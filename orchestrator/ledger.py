"""What agents have used, in tokens and USD: pure arithmetic, and the only place that adds such figures up.

    reported ──less what its session had reported before──▶ spent by this attempt ──added up──▶ subtask, group, job

Tokens are counted by kind (`input_tokens, output_tokens, cache_read_tokens, cache_write_tokens`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import fsum, inf
from typing import Any, Final, Protocol

BUDGET_EXCEEDED: Final = "budget_exceeded"
"""The reason of a job that has spent what its plan allowed; while it still runs, too."""

USD_DIGITS: Final = 9
"""Finer than any price of a token. It keeps sums of binary fractions from showing a tail, or missing a budget by it."""


class Counted(StrEnum):
    """What the figures of a program speak of, and so what becomes of those of a resumed session."""

    PER_RUN = "per run"
    """This run alone: they are added."""
    PER_SESSION = "per session"
    """The session since its beginning: what the runs before had reported is taken off."""


@dataclass(frozen=True)
class Figures:
    """What a program told of one run, or of a session. None: it did not tell."""

    usage: Mapping[str, int] | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Before:
    """What the earlier runs of a session had reported last; the defaults where there were none.

    `estimated_usd` is what runs after that report are taken to have cost, which had come to no report of their own.
    """

    reported: Figures = Figures()
    estimated_usd: float = 0.0


def spent(reported: Figures, before: Before, *, tokens: Counted | None, cost: Counted | None) -> Figures:
    """What a run alone has used, given what it reported, and what its session had before it.

    Never negative. A counter that went back has begun anew, and is taken as it is.
    """
    usage, cost_usd = reported.usage, reported.cost_usd
    if tokens is Counted.PER_SESSION and usage is not None and before.reported.usage is not None:
        usage = _tokens_since(before.reported.usage, usage)
    if cost is Counted.PER_SESSION and cost_usd is not None:
        cost_usd = _cost_since(before, cost_usd)
    return Figures(usage, cost_usd)


def _cost_since(before: Before, now: float) -> float:
    """An estimate is taken off as well: a program that was killed may have noted its cost for the next report."""
    last = before.reported.cost_usd or 0.0
    return _usd(max(now - last - before.estimated_usd, 0.0)) if now >= last else now


def _tokens_since(before: Mapping[str, int], now: Mapping[str, int]) -> Mapping[str, int]:
    if any(now.get(kind, 0) < count for kind, count in before.items()):
        return now
    return {kind: count - before.get(kind, 0) for kind, count in now.items()}


def own_limit_usd(config: Mapping[str, Any]) -> float | None:
    """What an agent's configuration in a plan lets one attempt spend, by either of the names in use."""
    for key in ("max_budget_usd", "max_cost_usd"):
        limit = config.get(key)
        if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < inf:
            return float(limit)
    return None


class Metered(Protocol):
    """An attempt, as far as the ledger is concerned with it."""

    @property
    def usage(self) -> Mapping[str, Any] | None: ...
    @property
    def cost_usd(self) -> float | None: ...
    @property
    def cost_estimated(self) -> bool: ...
    @property
    def cost_unknown(self) -> bool: ...


@dataclass(frozen=True)
class Spending:
    """A sum over attempts. `cost_usd` is None where no attempt has told its cost, and none could be estimated."""

    usage: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    estimated: bool = False
    """Some of the cost is tokens times a price of the table."""
    cost_incomplete: bool = False
    """An attempt has spent what nobody could tell: its worker was lost, it was killed, or its model has no price."""
    tokens_incomplete: bool = False

    @property
    def tokens(self) -> int | None:
        """Of every kind together; None where no attempt has told any."""
        return sum(self.usage.values()) if self.usage else None

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.usage) or self.cost_usd is not None


NOTHING_TOLD: Final = Spending()


def total(parts: Iterable[Spending]) -> Spending:
    """The sum of sums."""
    parts = list(parts)
    usage: Counter[str] = Counter()
    for part in parts:
        usage.update(part.usage)
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    return Spending(
        usage=dict(usage),
        cost_usd=_usd(fsum(costs)) if costs else None,
        estimated=any(part.estimated for part in parts),
        cost_incomplete=any(part.cost_incomplete for part in parts),
        tokens_incomplete=any(part.tokens_incomplete for part in parts),
    )


def spending(attempts: Iterable[Metered]) -> Spending:
    """What these attempts have used together."""
    return total(
        Spending(
            usage={kind: count for kind, count in (attempt.usage or {}).items() if isinstance(count, int)},
            cost_usd=attempt.cost_usd,
            estimated=attempt.cost_estimated,
            cost_incomplete=attempt.cost_unknown,
            tokens_incomplete=attempt.cost_unknown and not attempt.usage,
        )
        for attempt in attempts
    )


def in_words(sums: Spending) -> str:
    """`$1.23 · 45k tokens`, `~$1.23` for an estimate, `at least …` of an incomplete sum; empty where nothing was told."""
    parts = [cost_in_words(sums)] if sums.cost_usd is not None else []
    if sums.tokens is not None:
        parts.append(f"{'at least ' if sums.tokens_incomplete else ''}{_short(sums.tokens)} tokens")
    return " · ".join(parts)


def cost_in_words(sums: Spending) -> str:
    """`at least ~$1.23`; a dash where nobody told."""
    if sums.cost_usd is None:
        return "–"
    return f"{'at least ' if sums.cost_incomplete else ''}{'~' if sums.estimated else ''}{usd_in_words(sums.cost_usd)}"


def usd_in_words(value: float) -> str:
    """`$1,234.50`; below a cent as many digits as say something."""
    if 0 < value < 0.01:
        return f"${value:.4f}" if value >= 0.0001 else "<$0.0001"
    return f"${value:,.2f}"


def _short(count: int) -> str:
    """`950`, `45k`, `1.2M`"""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 999_500 else f"{count / 1_000_000:.1f}M"


def _usd(value: float) -> float:
    return round(value, USD_DIGITS)
