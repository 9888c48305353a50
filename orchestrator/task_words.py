"""What a caller's task says, whatever it is: text, a mapping or an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LONGEST_TITLE: Final = 500
"""As long as a plan's title may be."""


@dataclass(frozen=True)
class TaskWords:
    """`id` is the caller's own, None if the task has none. `goal` is what every agent is told of the whole."""

    id: Any
    title: str
    goal: str


def task_words(task: Any, context: Mapping[str, Any] | None = None) -> TaskWords:
    """Read `id` (or `task_id`), `title` and `description` of a task; text is its own title and description."""
    if isinstance(task, str):
        return TaskWords(None, _one_line(task) or "Task", _with_context(task, context))
    task_id = of_task(task, "id", of_task(task, "task_id"))
    title = _one_line(str(of_task(task, "title") or ""))
    if not title:
        title = "Task" if task_id is None else f"Task {task_id}"
    return TaskWords(task_id, title, _with_context(str(of_task(task, "description") or ""), context))


def of_task(task: Any, name: str, default: Any = None) -> Any:
    """A value of the task by its name: a key of a mapping, an attribute of anything else."""
    return task.get(name, default) if isinstance(task, Mapping) else getattr(task, name, default)


def _one_line(text: str) -> str:
    """The first line that says something, without what a title can't hold."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(character for character in first if character.isprintable())[:LONGEST_TITLE].strip()


def _with_context(description: str, context: Mapping[str, Any] | None) -> str:
    if not context:
        return description
    lines = [f"- {key}: {value}" for key, value in context.items()]
    return "\n".join([*([description, ""] if description.strip() else []), "Context:", *lines])
