"""The ledger: over any chain of runs, retries and resumes nothing is counted twice, and nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ledger import (
    NOTHING_TOLD,
    Before,
    Counted,
    Figures,
    Spending,
    in_words,
    own_limit_usd,
    spending,
    spent,
    usd_in_words,
)

PER_RUN, PER_SESSION = Counted.PER_RUN, Counted.PER_SESSION
KINDS = ("input_tokens", "output_tokens", "cache_read_tokens")


@dataclass(frozen=True)
class Run:
    """One run of a session: what it really used, and whether it came to telling so."""

    tokens: dict[str, int]
    cents: int
    tells: bool


RUNS = st.builds(
    Run,
    tokens=st.fixed_dictionaries({kind: st.integers(0, 10_000) for kind in KINDS}),
    cents=st.integers(0, 500),
    tells=st.booleans(),
)


def told_in_chain(runs: list[Run], counted: Counted) -> list[Figures]:
    """What a program that counts so reports after each of these runs of one session."""
    reports = []
    usage, cents = dict.fromkeys(KINDS, 0), 0
    for run in runs:
        usage = {kind: usage[kind] + run.tokens[kind] for kind in KINDS}
        cents += run.cents
        told = Figures(usage, cents / 100) if counted is PER_SESSION else Figures(run.tokens, run.cents / 100)
        reports.append(told if run.tells else Figures())
    return reports


def spent_in_chain(reports: list[Figures], counted: Counted) -> list[Figures]:
    """What the ledger makes of them, each one looking back at the latest that has told."""
    found, last = [], Figures()
    for report in reports:
        found.append(spent(report, Before(last), tokens=counted, cost=counted))
        last = Figures(report.usage or last.usage, last.cost_usd if report.cost_usd is None else report.cost_usd)
    return found


@given(st.lists(RUNS, max_size=8))
def test_the_attempts_of_a_session_add_up_to_what_it_reported_last(runs: list[Run]) -> None:
    reports = told_in_chain(runs, PER_SESSION)
    parts = spent_in_chain(reports, PER_SESSION)
    told = [report for report in reports if report.usage is not None]
    assert sum_of(parts) == ((told[-1].usage, told[-1].cost_usd) if told else ({}, 0.0))


@given(st.lists(RUNS, max_size=8))
def test_figures_of_single_runs_are_added(runs: list[Run]) -> None:
    parts = spent_in_chain(told_in_chain(runs, PER_RUN), PER_RUN)
    told = [run for run in runs if run.tells]
    usage = {kind: sum(run.tokens[kind] for run in told) for kind in KINDS} if told else {}
    assert sum_of(parts) == (usage, pytest.approx(sum(run.cents for run in told) / 100))


@given(st.lists(st.lists(RUNS, min_size=1, max_size=4), max_size=4))
def test_a_counter_that_went_back_has_begun_anew(sessions: list[list[Run]]) -> None:
    """A program that began a new session under the same id. Its first report may be larger than the last one by chance:
    then nobody can tell, so each session here begins with a run that used less than all before."""
    told: list[Figures] = []
    expected = 0
    for number, runs in enumerate(sessions):
        all_tell = [replace(run, tells=True) for run in runs]
        if number:
            first = Run(dict.fromkeys(KINDS, 0), 0, tells=True)
            all_tell = [first, *all_tell]
            if told and not any((told[-1].usage or {}).values()):
                continue
        told += told_in_chain(all_tell, PER_SESSION)
        expected += sum(sum(run.tokens.values()) for run in all_tell)
    parts = spent_in_chain(told, PER_SESSION)
    assert sum(sum((part.usage or {}).values()) for part in parts) == expected


@given(
    reported=st.floats(0, 1000),
    before=st.one_of(st.none(), st.floats(0, 1000)),
    estimated=st.floats(0, 1000),
    usage=st.dictionaries(st.sampled_from(KINDS), st.integers(0, 1000)),
    usage_before=st.one_of(st.none(), st.dictionaries(st.sampled_from(KINDS), st.integers(0, 1000))),
    tokens=st.sampled_from([None, *Counted]),
    cost=st.sampled_from([None, *Counted]),
)
def test_nothing_is_ever_negative(
    reported: float,
    before: float | None,
    estimated: float,
    usage: dict[str, int],
    usage_before: dict[str, int] | None,
    tokens: Counted | None,
    cost: Counted | None,
) -> None:
    earlier = Before(Figures(usage_before, before), estimated)
    found = spent(Figures(usage, reported), earlier, tokens=tokens, cost=cost)
    assert found.cost_usd is not None
    assert found.cost_usd >= 0
    assert all(count >= 0 for count in (found.usage or {}).values())


def test_an_estimate_for_a_killed_run_is_taken_off_the_next_report() -> None:
    """The program may have noted its cost as it died: then the next report holds it."""
    report = Figures({}, 0.9)
    assert spent(report, Before(Figures(None, 0.3), 0.2), tokens=None, cost=PER_SESSION).cost_usd == 0.4
    assert spent(report, Before(Figures(), 0.2), tokens=None, cost=PER_SESSION).cost_usd == 0.7
    assert spent(report, Before(Figures(None, 0.3), 0.8), tokens=None, cost=PER_SESSION).cost_usd == 0.0


def sum_of(parts: list[Figures]) -> tuple[dict[str, int], Any]:
    usages = [part.usage for part in parts if part.usage is not None]
    usage = {kind: sum(one[kind] for one in usages) for kind in KINDS} if usages else {}
    return usage, pytest.approx(fsum(part.cost_usd or 0.0 for part in parts))


@dataclass(frozen=True)
class Attempt:
    usage: dict[str, Any] | None = None
    cost_usd: float | None = None
    cost_estimated: bool = False
    cost_unknown: bool = False


def test_a_sum_says_what_it_does_not_know() -> None:
    known = Attempt({"input_tokens": 40_000, "output_tokens": 5_000, "strange": "words"}, 1.0)
    assert spending([known, Attempt()]) == Spending({"input_tokens": 40_000, "output_tokens": 5_000}, 1.0)
    assert in_words(spending([known])) == "$1.00 · 45k tokens"
    estimated = Attempt({"input_tokens": 5}, 0.23, cost_estimated=True)
    assert in_words(spending([known, estimated])) == "~$1.23 · 45k tokens"
    without_price = Attempt({"input_tokens": 999}, cost_unknown=True)
    assert in_words(spending([known, without_price])) == "at least $1.00 · 46k tokens"
    lost = Attempt(cost_unknown=True)
    assert in_words(spending([known, estimated, lost])) == "at least ~$1.23 · at least 45k tokens"


def test_where_nobody_told_there_is_nothing_to_say() -> None:
    assert not spending([Attempt(), Attempt({}), Attempt(cost_unknown=True)])
    assert (NOTHING_TOLD.tokens, in_words(NOTHING_TOLD)) == (None, "")


def test_sums_of_money_have_no_tail() -> None:
    assert spending([Attempt(cost_usd=0.1)] * 3).cost_usd == 0.3


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "$0.00"), (0.00004, "<$0.0001"), (0.0051, "$0.0051"), (0.3, "$0.30"), (1234.5, "$1,234.50")],
)
def test_money_in_words(value: float, words: str) -> None:
    assert usd_in_words(value) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(950, "950 tokens"), (999_600, "1.0M tokens"), (999_400, "999k tokens"), (2_340_000, "2.3M tokens")],
)
def test_tokens_in_words(count: int, words: str) -> None:
    assert in_words(Spending({"input_tokens": count})) == words


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_budget_usd": 2}, 2.0),
        ({"max_cost_usd": 0.5}, 0.5),
        ({"max_budget_usd": "much"}, None),
        ({"max_budget_usd": True}, None),
        ({"max_budget_usd": -1}, None),
        ({}, None),
    ],
)
def test_an_agents_own_limit(config: dict[str, Any], limit: float | None) -> None:
    assert own_limit_usd(config) == limit
