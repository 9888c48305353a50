"""Finished attempts that push to the same repository at the same moment push together.

A push is eight programs where the repository is on the same machine, and a connection where it is not. Nobody waits for
company: the first to come goes alone, and those who come while it is under way are the next push, all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from orchestrator.push import Refusal, push_new
from workers.workspace import Workspace

PATIENCE_SECONDS: Final = 2.0
"""Who has waited so long for another's push goes alone, beside it: that one may be large, or its hook slow."""
MOST_AT_ONCE: Final = 100
TOGETHER_SECONDS: Final = 30.0
"""A company that takes longer breaks up: alone, each ends with its own attempt's signal."""


class Pushes:
    """Those of one worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[tuple[str | None, str], _Line] = {}

    def push(self, workspace: Workspace, commit: str, ref: str) -> Refusal | None:
        """What `Workspace.push` does. A push in company that did not succeed says nothing of any of them: each of them
        then goes alone, and answers for itself."""
        with self._lock:
            line = self._lines.setdefault((workspace.repo, str(workspace.cache)), _Line())
        own = _Push(workspace, commit, ref)
        with line.turn(own) as company:
            if company == [own]:
                return workspace.push(commit, ref)
            if company:
                _push_together(company)
        return None if own.pushed else workspace.push(commit, ref)


@dataclass(eq=False)
class _Push:
    workspace: Workspace
    commit: str
    ref: str
    pushed: bool | None = None
    """None: not known yet; False: it goes alone."""


class _Line:
    """Those who want to push to one repository."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.waiting: list[_Push] = []
        self._is_busy = False

    @contextmanager
    def turn(self, own: _Push) -> Iterator[list[_Push]]:
        """Wait until it is known who pushes this one. Inside the block are those whom the caller pushes, itself among
        them; none where another has pushed it, or where it has waited long enough."""
        company = self._board(own)
        try:
            yield company
        finally:
            if company:
                self._step_off(company)

    def _board(self, own: _Push) -> list[_Push]:
        with self._changed:
            self.waiting.append(own)
            self._changed.wait_for(lambda: own not in self.waiting or not self._is_busy, PATIENCE_SECONDS)
            if own not in self.waiting:
                self._changed.wait_for(lambda: own.pushed is not None)
                return []
            if self._is_busy:
                self.waiting.remove(own)
                return []
            others = [push for push in self.waiting if push is not own]
            self.waiting = others[MOST_AT_ONCE - 1 :]
            self._is_busy = True
            return [own, *others[: MOST_AT_ONCE - 1]]

    def _step_off(self, company: Sequence[_Push]) -> None:
        with self._changed:
            for one in company:
                one.pushed = bool(one.pushed)
            self._is_busy = False
            self._changed.notify_all()


def _push_together(company: Sequence[_Push]) -> None:
    """From the first one's repository, which borrows the objects of the others."""
    first = company[0].workspace
    assert first.repo is not None, "a workspace without a repository has nothing to push"
    pushed = push_new(
        first.repo,
        {one.ref: one.commit for one in company},
        cwd=first.record,
        lenders=[one.workspace.record / "objects" for one in company[1:]],
        timeout_seconds=TOGETHER_SECONDS,
    )
    for one in company:
        one.pushed = pushed
