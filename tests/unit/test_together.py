"""Calls of many threads, made together."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from orchestrator.together import Together
from tests.support.waiting import wait_until


class AwayError(Exception):
    pass


class Doubler:
    """Answers numbers with their double, and notes who came together. Begins only when the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[tuple[str, list[int]]] = []

    def __call__(self, key: str, numbers: Sequence[int]) -> list[int]:
        self.begun.append((key, list(numbers)))
        assert self.gate.wait(30)
        if 13 in numbers:
            raise ValueError("13")
        if 404 in numbers:
            raise AwayError
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def double(doubler: Doubler) -> Together[str, int, int]:
    return Together(doubler, shared=(AwayError,))


def begin(
    pool: ThreadPoolExecutor, double: Together[str, int, int], key: str, numbers: Sequence[int]
) -> list[Future[int]]:
    """Call with the first number, and with the others once that call is under way; each has to wait its turn."""
    futures = []
    for number in numbers:
        futures.append(pool.submit(double, key, number))
        wait_until(lambda: key in double._waiting, "the first one is under way")
        wait_until(lambda: len(double._waiting[key]) >= len(futures) - 1, "the others wait")
    return futures


def test_those_who_come_meanwhile_go_together(doubler: Doubler, double: Together[str, int, int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = begin(pool, double, "a", [1, 2, 3, 4])
        other = pool.submit(double, "b", 5)
        wait_until(lambda: len(doubler.begun) == 2, "another key waits for nobody")
        doubler.gate.set()
        assert [future.result(30) for future in futures] == [2, 4, 6, 8]
        assert other.result(30) == 10
    assert doubler.begun == [("a", [1]), ("b", [5]), ("a", [2, 3, 4])]
    assert double._waiting == {}


def test_nobody_fails_for_anothers_request(doubler: Doubler, double: Together[str, int, int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        first, good, bad, last = begin(pool, double, "a", [1, 2, 13, 4])
        doubler.gate.set()
        assert [future.result(30) for future in (first, good, last)] == [2, 4, 8]
        with pytest.raises(ValueError, match="13"):
            bad.result(30)
    assert doubler.begun == [("a", [1]), ("a", [2, 13, 4]), ("a", [2]), ("a", [13]), ("a", [4])]


def test_what_is_away_is_away_for_all(doubler: Doubler, double: Together[str, int, int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        first, *others = begin(pool, double, "a", [1, 2, 404, 4])
        doubler.gate.set()
        assert first.result(30) == 2
        for future in others:
            with pytest.raises(AwayError):
                future.result(30)
    assert len(doubler.begun) == 2
    assert double("a", 6) == 12


def test_a_crowd_is_answered_each_with_its_own(doubler: Doubler, double: Together[str, int, int]) -> None:
    doubler.gate.set()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: double(str(number % 3), number), range(100, 400)))
    assert answers == [2 * number for number in range(100, 400)]
    assert sum(len(numbers) for _, numbers in doubler.begun) == 300
    assert double._waiting == {}


def test_who_has_waited_long_enough_goes_alone(doubler: Doubler) -> None:
    double: Together[str, int, int] = Together(doubler, shared=(), patience_seconds=0.01)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(double, "a", 1)
        wait_until(lambda: doubler.begun == [("a", [1])], "the first one is under way")
        second = pool.submit(double, "a", 2)
        wait_until(lambda: doubler.begun[1:] == [("a", [2])], "the second one goes beside it")
        doubler.gate.set()
        assert [first.result(30), second.result(30)] == [2, 4]
    assert double._waiting == {}


def test_no_line_is_left_without_a_leader_by_those_who_lose_patience() -> None:
    def double_slowly(_key: str, numbers: Sequence[int]) -> list[int]:
        time.sleep(0.0005)  # as long as their patience: it ends just when one of them is woken to lead
        return [2 * number for number in numbers]

    double: Together[str, int, int] = Together(double_slowly, shared=(), patience_seconds=0.0005)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: double("a", number), range(3000), timeout=60))
    assert answers == [2 * number for number in range(3000)]
    assert double._waiting == {}
