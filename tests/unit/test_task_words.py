"""What a caller's task says, and how results of its subtasks become one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.state_manager import Task
from orchestrator.task_execution import merge_results
from orchestrator.task_words import TaskWords, task_words


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("Build it\nand test it", TaskWords(None, "Build it", "Build it\nand test it")),
        ({"id": 3, "title": "Build it", "description": "Well."}, TaskWords(3, "Build it", "Well.")),
        (SimpleNamespace(task_id=4, description=None), TaskWords(4, "Task 4", "")),
        (Task(5, "A\ttab", "x"), TaskWords(5, "Atab", "x")),
        (None, TaskWords(None, "Task", "")),
        ("", TaskWords(None, "Task", "")),
        (Task(6, "long " * 200), TaskWords(6, ("long " * 100).strip(), "")),
    ],
)
def test_a_task_may_be_text_a_mapping_or_an_object(task: Any, words: TaskWords) -> None:
    assert task_words(task) == words


def test_the_context_is_told_beside_the_description() -> None:
    assert task_words(Task(1, "T", "Do."), {"project_id": 1}).goal == "Do.\n\nContext:\n- project_id: 1"
    assert task_words(Task(1, "T"), {"project_id": 1}).goal == "Context:\n- project_id: 1"


def result(subtask_id: int, status: str, **more: Any) -> dict[str, Any]:
    usual = {"title": f"Step {subtask_id}", "result": None, "error": None, "duration_seconds": 2.0}
    return {"subtask_id": subtask_id, "status": status, **usual, **more}


def test_one_result_that_did_not_complete_is_the_status_of_the_whole() -> None:
    merged = merge_results(
        9, [result(1, "completed", result="a"), result(2, "timeout", error="late"), result(3, "skipped")]
    )
    assert (merged["task_id"], merged["status"], merged["duration_seconds"]) == (9, "timeout", 6.0)
    assert (merged["result"], merged["error"]) == ("1. Step 1: a", "2. Step 2: late")


def test_a_single_result_stands_for_itself() -> None:
    merged = merge_results(9, [result(1, "completed", result="a", branch="orchestrator/x")])
    assert (merged["status"], merged["result"], merged["error"]) == ("completed", "a", None)
    assert merged["branch"] == "orchestrator/x"
