"""How a process learns from the keeper that started it."""

from __future__ import annotations

import os
import threading

import pytest

from orchestrator.local.lifeline import KEEPER_FD, watch_keeper
from tests.support.waiting import wait_until


def test_without_a_keeper_the_services_count_as_there_and_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEPER_FD, raising=False)
    assert watch_keeper(lambda: pytest.fail("nobody is gone")).is_set()


def test_a_byte_means_that_the_services_answer_and_the_end_that_the_keeper_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    monkeypatch.setenv(KEEPER_FD, str(read_end))
    gone = threading.Event()
    services_answer = watch_keeper(gone.set)
    assert KEEPER_FD not in os.environ
    assert not os.get_inheritable(read_end)
    assert not services_answer.is_set()
    os.write(write_end, b"\n")
    wait_until(services_answer.is_set, "the byte is heard")
    assert not gone.is_set()
    os.close(write_end)
    wait_until(gone.is_set, "the end is heard")


def test_a_keeper_that_ends_before_the_services_answer_wakes_who_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setenv(KEEPER_FD, str(read_end))
    gone = threading.Event()
    services_answer = watch_keeper(gone.set)
    os.close(write_end)
    wait_until(lambda: services_answer.is_set() and gone.is_set(), "both are heard")
