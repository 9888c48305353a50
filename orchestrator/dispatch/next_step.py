"""What follows a merge: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OnFailure = str | Mapping[str, int]
"""`stop`, `continue`, or `{"quorum": N}`: as many completed subtasks make a group good enough."""


@dataclass(frozen=True)
class MergedGroup:
    """A group after its merge. `statuses` are the final ones of its subtasks, conflicts already counted as failed."""

    statuses: Mapping[int, str]
    conflicts: Sequence[int] = ()
    check_passed: bool | None = None
    """None: there was none to run."""
    repairable: Sequence[int] = ()
    """Subtasks whose change is merged and that have a retry left, in merge order: who may mend a red check."""

    @property
    def failed(self) -> list[int]:
        return sorted(subtask_id for subtask_id, status in self.statuses.items() if status != "completed")


@dataclass(frozen=True)
class SendBack:
    """The group's check is red: this subtask goes again, on top of the merged branch, with the check's output."""

    subtask_id: int


@dataclass(frozen=True)
class Proceed:
    """The group is final. `go_on`: the next group may start, or the job may end as its groups say; else the job fails
    now, and what is left is skipped. `reason` and `error` say what was wrong with the group, if anything was."""

    group_status: str
    go_on: bool
    reason: str | None = None
    error: str | None = None


def next_step(group: MergedGroup, on_failure: OnFailure, *, ending: bool = False) -> SendBack | Proceed:
    """Decide what follows the merge of `group`. `ending`: its job was cancelled, or its deadline passed.

    A group is completed when its check is not red and no subtask failed, or as many completed as the quorum asks. A
    red check is mended by the subtask that was merged last and has a retry left, for it sees the whole group's work;
    not in a group that has failed anyway. After a failed group only `continue` goes on.
    """
    red = group.check_passed is False
    too_many_failed = _too_many_failed(group, on_failure)
    if red and group.repairable and not too_many_failed and not ending:
        return SendBack(group.repairable[-1])
    if not red and not too_many_failed:
        return Proceed("completed", go_on=True)
    if red:
        reason, error = "group_check", "the group's check is red"
    else:
        reason, error = _why_failed(group)
    return Proceed("failed", go_on=on_failure == "continue", reason=reason, error=error)


def _too_many_failed(group: MergedGroup, on_failure: OnFailure) -> bool:
    if not isinstance(on_failure, Mapping):
        return bool(group.failed)
    quorum = min(int(on_failure["quorum"]), len(group.statuses))
    return len(group.statuses) - len(group.failed) < quorum


def _why_failed(group: MergedGroup) -> tuple[str, str]:
    names = ", ".join(f"#{subtask_id}" for subtask_id in group.failed)
    subjects = f"subtask {names}" if len(group.failed) == 1 else f"subtasks {names}"
    if set(group.conflicts) == set(group.failed):
        return "conflict", f"{subjects} could not be merged"
    return "subtasks_failed", f"{subjects} did not complete"
