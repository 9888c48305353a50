"""The prompt of one attempt: a pure function of what the job knows when the attempt starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.outcomes import Outcome
from orchestrator.plan.model import ResolvedSubtask

MAX_FEEDBACK_BYTES: Final = 8 * 1024
MAX_SUMMARY_BYTES: Final = 2 * 1024
MAX_NAMED_SUBTASKS: Final = 50
MAX_NAMED_FILES: Final = 30


@dataclass(frozen=True)
class DependencyResult:
    """What a subtask that this one depends on has produced; no commit if it changed nothing or failed."""

    subtask_id: int
    title: str
    summary: str | None = None
    commit: str | None = None
    files_changed: Sequence[str] = ()


def build_prompt(
    *,
    job_title: str,
    goal: str,
    subtask: ResolvedSubtask,
    siblings: Sequence[ResolvedSubtask],
    dependencies: Sequence[DependencyResult],
    feedback: str | None,
    has_repository: bool,
) -> str:
    """Markdown that ends in a newline.

    `siblings` are the other subtasks of the group; the subtask itself may be among them and is left out. `feedback`
    is what went wrong in the attempt before, at most `MAX_FEEDBACK_BYTES` of it. Long lists and texts are cut, and
    say so.
    """
    others = [sibling for sibling in siblings if sibling.subtask_id != subtask.subtask_id]
    sections = [
        _heading(job_title, goal, subtask),
        _last_attempt(feedback),
        _produced(dependencies, has_repository),
        _at_work_beside(others, has_repository),
        _rules(subtask, has_repository, alone=not others),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_CUT_OFF: Final = {
    Outcome.TIMEOUT: "your time was up",
    Outcome.IDLE_TIMEOUT: "nothing was heard of you for too long",
    Outcome.RATE_LIMITED: "the model's provider asked for a pause",
    Outcome.PROVIDER_UNAVAILABLE: "the model's provider did not answer",
    Outcome.WORKER_LOST: "the machine that you ran on was lost",
    Outcome.INTERRUPTED: "the machine that you ran on was shut down",
}


def build_prompt_to_go_on(*, subtask: ResolvedSubtask, cut_off_by: Outcome, feedback: str | None) -> str:
    """What a session is told that goes on with its task in a new folder: short, for it has been told the rest."""
    parts = [
        f"# Go on with your task: {subtask.title}",
        f"You were cut off in the midst of it: {_CUT_OFF[cut_off_by]}. Your changes are in the folder where you are now, "
        "which may be another one than before: work in this folder only. Your commits are there, and what you had not "
        "committed is staged. What git ignores is not there, commands that were running have ended, and your last "
        "changes may be missing: look what is there, then finish the task. The rules are the same as before.",
    ]
    if feedback and feedback.strip():
        parts.append(f"## What was noted\n\n{fenced(shortened(feedback.strip(), MAX_FEEDBACK_BYTES))}")
    if subtask.check is not None:
        parts.append(
            f"When you have ended, this command is run in your folder and must succeed:\n\n{fenced(subtask.check)}"
        )
    return "\n\n".join(parts) + "\n"


def _heading(job_title: str, goal: str, subtask: ResolvedSubtask) -> str:
    parts = [f"# Your task: {subtask.title}"]
    if subtask.description.strip():
        parts.append(subtask.description.strip())
    if subtask.files:
        parts.append(f"You are expected to touch: {_listed(subtask.files)}.")
    parts.append(f"## The whole\n\nThis is subtask {subtask.subtask_id} of the job “{job_title}”.")
    if goal.strip():
        parts.append(goal.strip())
    return "\n\n".join(parts)


def _last_attempt(feedback: str | None) -> str:
    if not feedback or not feedback.strip():
        return ""
    return (
        "## What went wrong last time\n\nAn earlier attempt at this subtask did not succeed. Its changes are not in your "
        f"folder.\n\n{fenced(shortened(feedback.strip(), MAX_FEEDBACK_BYTES))}"
    )


def _produced(dependencies: Sequence[DependencyResult], has_repository: bool) -> str:
    if not dependencies:
        return ""
    where = " What they committed is already in your folder." if has_repository else ""
    entries = [_dependency(dependency) for dependency in dependencies[:MAX_NAMED_SUBTASKS]]
    return "\n\n".join(
        [f"## What your task builds on\n\nThese subtasks came before yours.{where}", *entries, *_more(dependencies)]
    )


def _dependency(dependency: DependencyResult) -> str:
    commit = f" (commit {dependency.commit[:12]})" if dependency.commit else ""
    lines = [f"### Subtask {dependency.subtask_id}: {dependency.title}{commit}"]
    if dependency.files_changed:
        lines.append(f"Files changed: {_listed(dependency.files_changed)}.")
    if dependency.summary and dependency.summary.strip():
        lines.append(fenced(shortened(dependency.summary.strip(), MAX_SUMMARY_BYTES)))
    return "\n\n".join(lines)


def _at_work_beside(others: Sequence[ResolvedSubtask], has_repository: bool) -> str:
    if not others:
        return ""
    where = "its own copy of the repository" if has_repository else "its own folder"
    lines = [
        f"- {other.subtask_id}: {other.title}" + (f" (touches {_listed(other.files)})" if other.files else "")
        for other in others[:MAX_NAMED_SUBTASKS]
    ]
    return "\n".join(
        [
            f"## At work beside you\n\nOther agents work on these subtasks at the same time, each in {where}:\n",
            *lines,
            *(f"- {more}" for more in _more(others)),
        ]
    )


def _rules(subtask: ResolvedSubtask, has_repository: bool, *, alone: bool) -> str:
    rules = []
    if subtask.permissions == "read-only":
        rules.append("You may only read. Change no file, here or elsewhere: an attempt that changed one has failed.")
    elif has_repository:
        rules += [
            "Work in the current folder only. It is a git clone of your own, made for this attempt.",
            "Stay on the branch that is checked out. Commit if you like: what you leave uncommitted is committed for you. "
            "Do not push, and do not rewrite commits that were there before you.",
        ]
        if not alone:
            rules.append(
                "Your change is merged with those of the other agents. Change what your task needs and nothing else; "
                "leave to the others what is theirs."
            )
    else:
        rules.append("Work in the current folder only. It is yours alone, made for this attempt.")
    if subtask.kind == "testing":
        rules.append(
            "Run the tests, and fix nothing that your task does not ask for. If a test fails, say which and why."
        )
    elif subtask.permissions != "read-only":
        rules.append("Run the tests that cover what you changed before you finish.")
    rules.append("Nobody can answer questions. If the task can't be done, say why and end with an error.")
    text = "## Rules\n\n" + "\n".join(f"- {rule}" for rule in rules)
    if subtask.check is not None:
        text += (
            f"\n\nWhen you have ended, this command is run in your folder and must succeed:\n\n{fenced(subtask.check)}"
        )
    return text


def shortened(text: str, most_bytes: int) -> str:
    """At most `most_bytes` of UTF-8: the beginning and, three times as long, the end, with the cut marked between
    them."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    mark = f"\n[… {len(encoded)} bytes, cut here …]\n"
    room = most_bytes - len(mark.encode())
    head, tail = encoded[: room // 4], encoded[len(encoded) - (room - room // 4) :]
    return head.decode(errors="ignore") + mark + tail.decode(errors="ignore")


def fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backquotes inside."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _listed(files: Sequence[str]) -> str:
    shown = ", ".join(f"`{file}`" for file in files[:MAX_NAMED_FILES])
    return shown + (f" and {len(files) - MAX_NAMED_FILES} more" if len(files) > MAX_NAMED_FILES else "")


def _more(subtasks: Sequence[object]) -> Iterator[str]:
    if len(subtasks) > MAX_NAMED_SUBTASKS:
        yield f"and {len(subtasks) - MAX_NAMED_SUBTASKS} more"
