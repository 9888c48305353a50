"""A freed slot is noticed at once.

With `worker_disable_prefetch` Celery takes a message only when a slot is free, and looks for a free one when its event
loop turns; with the threads pool nothing turns the loop when a task ends, so a slot stays empty for up to a second.
This step writes a byte into a pipe that the loop watches whenever a pool thread is done. (Ten tasks of 50 ms on two
slots: 3.8 s without it, 0.4 s with it.)
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Future
from typing import Any

from celery import bootsteps


class NoticeFreeSlots(bootsteps.StartStopStep):
    """A consumer step: after each reconnect the loop has forgotten its readers, and this is started again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._pipe: tuple[int, int] | None = None

    def start(self, consumer: Any) -> None:
        executor = getattr(consumer.pool, "executor", None)
        if executor is None or consumer.hub is None:
            return
        if self._pipe is None:
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._wake_when_done(executor, self._pipe[1])
        consumer.hub.add_reader(self._pipe[0], self._drain, self._pipe[0])

    @staticmethod
    def _drain(read_end: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(read_end, 4096)

    @staticmethod
    def _wake_when_done(executor: Any, write_end: int) -> None:
        submit = executor.submit

        def wake(_future: Future[Any]) -> None:
            # A full pipe wakes the loop just as well.
            with contextlib.suppress(BlockingIOError):
                os.write(write_end, b"\0")

        def submit_and_wake(*args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = submit(*args, **kwargs)
            future.add_done_callback(wake)
            return future

        executor.submit = submit_and_wake
