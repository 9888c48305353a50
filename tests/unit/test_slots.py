"""Who holds a slot, and when the event loop is told that one is free."""

from __future__ import annotations

import os

import pytest

from workers.slots import Slots


@pytest.fixture
def slots() -> Slots:
    return Slots()


def is_told(slots: Slots) -> bool:
    try:
        return bool(os.read(slots.read_end, 4096))
    except BlockingIOError:
        return False


def test_a_task_that_has_left_its_slot_holds_none(slots: Slots) -> None:
    assert slots.are_free(tasks=1, slots=2)
    assert not slots.are_free(tasks=2, slots=2)
    with slots.left():
        assert slots.are_free(tasks=2, slots=2)
        with slots.left():
            assert slots.are_free(tasks=3, slots=2)
        assert not slots.are_free(tasks=3, slots=2)
    assert not slots.are_free(tasks=2, slots=2)


def test_more_tasks_than_threads_never_come(slots: Slots) -> None:
    with slots.left(), slots.left(), slots.left():
        assert slots.are_free(tasks=3, slots=2)
        assert not slots.are_free(tasks=4, slots=2), "a fifth would wait for a thread"


def test_a_slot_that_is_taken_back_is_given_once(slots: Slots) -> None:
    with slots.left() as slot:
        slot.take_back()
        slot.take_back()
        assert not slots.are_free(tasks=2, slots=2)
    assert not slots.are_free(tasks=2, slots=2)
    assert slots.are_free(tasks=1, slots=2)


def test_the_loop_is_told_when_it_found_no_slot_free_and_only_then(slots: Slots) -> None:
    slots.are_free(tasks=1, slots=2)
    with slots.left():
        assert not is_told(slots), "it waits for a message anyway"
    slots.are_free(tasks=2, slots=2)
    with slots.left():
        assert is_told(slots)
    slots.tell()
    assert is_told(slots)
    slots.drain()
    slots.drain()  # nothing there: it does not wait
