"""An agent's last words: the one JSON object in them, or what is wrong, in words."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import Fault
from orchestrator.plan.answer import LONGEST_ANSWER, find_object

PLAN = {"title": "A", "subtasks": [{"subtask_id": 1, "title": "{braces} and ``` and \n lines"}]}
WRITTEN = json.dumps(PLAN)


@pytest.mark.parametrize(
    "answer",
    [
        WRITTEN,
        json.dumps(PLAN, indent="\t"),
        f"Here is the plan:\n\n```json\n{WRITTEN}\n```\n\nIt has one subtask.",
        f"I looked at `{{name}}` and at {{}} and at\n```c\nint main() {{ return 0; }}\n```\nso: {WRITTEN}",
        f'A subtask looks like {{"subtask_id": 1}}. {WRITTEN}',
        f"{WRITTEN}\n\nOnce more, the same: {WRITTEN}",
        WRITTEN.replace("\\n lines", "\n lines"),  # a line break as it is, which JSON forbids and models write
    ],
)
def test_the_plan_is_found_in_whatever_stands_around_it(answer: str) -> None:
    assert find_object(answer) == PLAN


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "holds no JSON object"),
        ("I could not find anything to do.", "holds no JSON object"),
        ("title: YAML\nsubtasks: []", "holds no JSON object"),
        ("[1, 2]", "holds no JSON object"),
        ("{name} and {other}", "holds no JSON object"),
        (WRITTEN[:-3], "breaks off before its end"),
        (WRITTEN[:30], "breaks off before its end"),
        (f"```\n{WRITTEN[:-1]},}}\n```", "is broken in line 2, column "),
        ('{"title": "A" "subtasks": []}', "Expecting ',' delimiter"),
        (f"{WRITTEN} or {WRITTEN.replace('1', '2')}", "holds 2 plans"),
        ("{" * 100_000, "holds no JSON object"),
        ('{"subtasks": ' * 20_000, "holds no JSON object"),
        ('{"subtasks": ' + "9" * 5_000 + "}", "holds no JSON object"),
        ('{"a":"' + '{"b":"' * 80_000, "is broken in line 1"),  # each brace begins what is seen to be broken late
        ("x" * (LONGEST_ANSWER + 1), "longer than 524,288 characters"),
    ],
)
def test_what_is_no_answer_is_said_in_words(answer: str, words: str) -> None:
    fault = find_object(answer)
    assert isinstance(fault, Fault)
    assert words in fault.message
    assert fault.hint
    assert "\n" not in fault.message


def test_the_only_object_is_taken_though_it_is_no_plan_so_that_its_keys_are_told() -> None:
    assert find_object('So: {"plan": 1}') == {"plan": 1}
