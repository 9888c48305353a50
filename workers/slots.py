"""Slots: how many tasks a process has at work at once, and that none of them stays empty.

With `worker_disable_prefetch` Celery takes a message only when a slot is free, and looks for a free one when its event
loop turns. Two things of ours keep the slots busy:

    a slot that is free is noticed at once     with the threads pool nothing turns the loop when a task ends, so a slot
                                               stayed empty for up to a second (ten tasks of 50 ms on two slots: 3.8 s,
                                               and 0.4 s with this)
    an agent that is done leaves its slot      the next one begins while its end is recorded, counted and published
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import MethodType
from typing import Any, Final

from celery import bootsteps
from celery.worker import state

THREADS_PER_SLOT: Final = 2
"""One that works, and one that records."""


class Slots:
    """The slots of this process, and a pipe by which its event loop hears that one is free."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._left = 0
        self._is_refused = False

    @contextlib.contextmanager
    def left(self) -> Iterator[Left]:
        """While the block runs, the task of this thread holds no slot, unless it takes it back."""
        with self._lock:
            self._left += 1
        self.tell()
        left = Left(self)
        try:
            yield left
        finally:
            # Before Celery counts the task as done: no slot may ever count twice as free.
            left.take_back()

    def are_free(self, tasks: int, slots: int) -> bool:
        """Whether a task may come to these, which hold a slot each unless they have left it."""
        # Before the look: who leaves after it sees that the loop is to be told.
        self._is_refused = True
        self._is_refused = not (tasks - self._left < slots and tasks < slots * THREADS_PER_SLOT)
        return not self._is_refused

    def tell(self) -> None:
        """A slot may be free: turn the event loop, unless it waits for a message anyway."""
        if self._is_refused:
            with contextlib.suppress(BlockingIOError):  # a full pipe turns it just as well
                os.write(self._write_end, b"\0")

    def drain(self) -> None:
        """What the event loop calls when it was told."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.read_end, 4096)

    def _taken_back(self) -> None:
        with self._lock:
            self._left -= 1


class Left:
    """A slot that its task has left."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_left = True

    def take_back(self) -> None:
        """From now on the task holds a slot again: it waits for something, and others would wait with it."""
        if self._is_left:
            self._is_left = False
            self._slots._taken_back()


def keep_busy(slots: Slots) -> type[bootsteps.StartStopStep]:
    """A consumer step for Celery. After each reconnect the loop has forgotten its readers, and this is started again."""

    class KeepSlotsBusy(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            if consumer.hub is None:
                return
            if not isinstance(consumer.pool.executor, _Executor):
                consumer.pool.executor = _Executor(consumer.pool.limit * THREADS_PER_SLOT, slots)
            consumer.hub.add_reader(slots.read_end, slots.drain)

            def can_consume(qos: Any) -> bool:
                return slots.are_free(len(state.reserved_requests), consumer.pool.limit) and type(qos).can_consume(qos)

            # In place of the one that `worker_disable_prefetch` puts there, which knows of tasks and not of slots.
            qos = consumer.task_consumer.channel.qos
            qos.can_consume = MethodType(can_consume, qos)

    return KeepSlotsBusy


class _Executor(ThreadPoolExecutor):
    """Turns the event loop when a task is done."""

    def __init__(self, threads: int, slots: Slots) -> None:
        super().__init__(max_workers=threads)
        self._slots = slots

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(*args, **kwargs)
        future.add_done_callback(lambda _future: self._slots.tell())
        return future
