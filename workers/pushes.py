"""Finished attempts that push to the same repository at the same moment push together.

A push is eight programs where the repository is on the same machine, and a connection where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from orchestrator.push import Refusal, push_new
from orchestrator.together import Together
from workers.workspace import Workspace

PATIENCE_SECONDS: Final = 2.0
"""Who has waited so long for another's push goes alone, beside it: that one may be large, or its hook slow."""
TOGETHER_SECONDS: Final = 30.0
"""A company that takes longer breaks up: alone, each ends with its own attempt's signal."""


@dataclass(frozen=True)
class _Push:
    workspace: Workspace
    commit: str
    ref: str

    def alone(self) -> Refusal | None:
        return self.workspace.push(self.commit, self.ref)


class _Answer(Enum):
    GO_ALONE = "go alone"


class Pushes:
    """Those of one worker."""

    def __init__(self) -> None:
        self._together = Together(_push_all, shared=(), patience_seconds=PATIENCE_SECONDS)

    def push(self, workspace: Workspace, commit: str, ref: str) -> Refusal | None:
        """What `Workspace.push` does. A push in company that did not succeed says nothing of any of them: each of them
        then goes alone, in its own thread, and answers for itself."""
        own = _Push(workspace, commit, ref)
        answer = self._together((workspace.repo, str(workspace.cache)), own)
        return own.alone() if answer is _Answer.GO_ALONE else answer


def _push_all(key: tuple[str | None, str], pushes: Sequence[_Push]) -> list[Refusal | _Answer | None]:
    """All of a company from the first one's repository, which borrows the objects of the others."""
    if len(pushes) == 1:
        return [pushes[0].alone()]
    repo, _ = key
    assert repo is not None, "a workspace without a repository has nothing to push"
    arrived = push_new(
        repo,
        {one.ref: one.commit for one in pushes},
        cwd=pushes[0].workspace.outgoing,
        lenders=[one.workspace.outgoing / "objects" for one in pushes[1:]],
        timeout_seconds=TOGETHER_SECONDS,
    )
    return [None if arrived else _Answer.GO_ALONE for _ in pushes]
