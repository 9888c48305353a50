"""Calls that come while one like them is under way are made together, as the next one.

What many threads ask of the database at the same moment so costs one transaction, with one commit and one wait for
the disk; what they push to a repository, one connection. Nobody waits for company: the first to come goes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Together(Generic[Key, Request, Answer]):
    """`make(key, requests)` answers requests in their order, in whichever of the callers' threads; one at a time a key.

    `shared` are the errors that say nothing of a single request, such as a database that is away: all who asked get
    them. After any other error each request is made alone, so that nobody fails for another's. Who has waited for
    `patience_seconds` for others' requests (None: for ever) makes its own alone, beside them.
    """

    def __init__(
        self,
        make: Callable[[Key, Sequence[Request]], Sequence[Answer]],
        *,
        shared: tuple[type[Exception], ...],
        patience_seconds: float | None = None,
    ) -> None:
        self._make = make
        self._shared = shared
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._waiting: dict[Key, list[_Call[Request, Answer]]] = {}
        """By keys that somebody is making; who waits first leads next."""

    def __call__(self, key: Key, request: Request) -> Answer:
        """The answer to this request. Raises what `make` has raised for it."""
        call: _Call[Request, Answer] = _Call(request)
        with self._lock:
            leads = key not in self._waiting
            waiting = self._waiting.setdefault(key, [])
            waiting.append(call)
        if not leads and not self._is_woken(key, call):
            self._answer(key, [call])
        if not call.is_answered:
            self._lead(key, call)
        return call.result()

    def _is_woken(self, key: Key, call: _Call[Request, Answer]) -> bool:
        """Wait until the call is answered, or first in line. False: its patience is at an end, and nobody has taken it
        along."""
        if call.woken.acquire(timeout=-1 if self._patience_seconds is None else self._patience_seconds):
            return True
        with self._lock:
            # Who is first in line is woken under the lock: the line must not lose its next leader.
            if call.woken.acquire(blocking=False):
                return True
            if call in self._waiting.get(key, ()):
                self._waiting[key].remove(call)
                return False
        return call.woken.acquire()

    def _lead(self, key: Key, own: _Call[Request, Answer]) -> None:
        with self._lock:
            calls, self._waiting[key] = self._waiting[key], []
        try:
            self._answer(key, calls)
        finally:
            with self._lock:
                # The next leader first: it has the servers to keep busy.
                if waiting := self._waiting[key]:
                    waiting[0].woken.release()
                else:
                    del self._waiting[key]
            for call in calls:
                if call is not own:
                    call.woken.release()

    def _answer(self, key: Key, calls: Sequence[_Call[Request, Answer]]) -> None:
        try:
            answers = self._make(key, [call.request for call in calls])
            for call, answer in zip(calls, answers, strict=True):
                call.answer(answer)
        except Exception as error:
            if len(calls) == 1 or isinstance(error, self._shared):
                for call in calls:
                    call.fail(error)
            else:
                for call in calls:
                    self._answer(key, [call])


class _Call(Generic[Request, Answer]):
    """One caller's. `woken` is a lock that stands for "answered, or first in line"."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.woken = threading.Lock()
        self.woken.acquire()
        self._answers: list[Answer] = []
        self._error: Exception | None = None

    @property
    def is_answered(self) -> bool:
        return bool(self._answers) or self._error is not None

    def answer(self, answer: Answer) -> None:
        self._answers.append(answer)

    def fail(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Answer:
        if self._error is not None:
            raise self._error
        return self._answers[0]
