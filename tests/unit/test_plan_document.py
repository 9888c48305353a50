"""A plan as YAML: read again it is the same plan, whatever its texts are; and it is made for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.plan.document import plan_as_yaml
from tests.support.plans import BOOKSTORE, plan, subtask, valid

READABLE = """\
# Proposed by somebody
# on a day
title: A job
# what holds for every subtask
defaults:
  agent: shell
# commands, run on the merged work of a group
group_checks:
  1: "pytest -q; true"
subtasks:

  # Group 1: 2 subtasks at the same time, about 45 min
  - subtask_id: 1
    title: Part 1
    description: |-
      One.

      Two.
    parallel_group: 1
    files: [src/a.py, "b c/*.py"]
    estimated_duration_minutes: 45
  - subtask_id: 3
    title: Part 3
    description: >-
      A long sentence that goes on and on, with words enough for more than one line of the file, and then it ends,
      at long last, in a dot.
    parallel_group: 1

  # Group 2: 1 subtask
  - subtask_id: 2
    title: Part 2
    description: Do it.
    kind: testing
    parallel_group: 2
    depends_on: [1, 3]
    timeout: 90s
    check: "yes"
"""


def test_it_is_readable() -> None:
    long = "A long sentence that goes on and on, with words enough for more than one line of the file, and then it ends, at long last, in a dot."
    files = ["src/a.py", "b c/*.py"]
    written = plan(
        subtask(1, parallel_group=1, description="One.\n\nTwo.", files=files, estimated_duration_minutes=45),
        subtask(2, parallel_group=2, kind="testing", depends_on=[1, 3], timeout="90s", check="yes"),
        subtask(3, parallel_group=1, description=long),
        group_checks={"1": "pytest -q; true"},
    )
    text = plan_as_yaml(valid(written), head=["Proposed by somebody", "on\na day"])
    assert text == READABLE


def test_a_long_path_stays_on_its_line() -> None:
    path = f"/srv/{'deep/' * 40}repository"
    assert f"repo: {path}\n" in plan_as_yaml(valid(BOOKSTORE), repo=path)


def test_the_formats_own_example_and_another_place_of_its_repository() -> None:
    once = valid(BOOKSTORE)
    assert valid(plan_as_yaml(once)).digest == once.digest
    assert "repo: ..\n" in plan_as_yaml(once, repo="..")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60) | st.text(
    "ab: #-'\"\n\t {}[]&*!|>%@`,?\\0123.eoxy~\r\x85\u2028", max_size=40
)
TITLES = TEXTS.map(lambda text: "".join(char for char in text if char.isprintable()).strip() or "t")
TRICKY = [
    "yes",
    "0o17",
    "1e5",
    "1_0",
    "null",
    "~",
    "2026-01-01",
    "=",
    "<<",
    "- a",
    "a: b",
    "a #b",
    "|",
    " lead",
    "x" * 200,
]


def written_with(title: str, text: str, other: str) -> dict[str, Any]:
    config = {"command": other or "c", "key": [other, {"deep": text}], text[:20]: 1.0}
    return plan(
        subtask(
            1,
            parallel_group=1,
            description=text,
            title=title,
            check=other or None,
            files=["a", title.strip("/") or "b"],
        ),
        subtask(2, parallel_group=2, title=title, agent={"name": "shell", "config": config}, estimated_complexity=0.5),
        title=title,
        goal=other,
        group_checks=(text or "c"),
        defaults={"agent": {"name": "shell", "command": text or "c"}, "timeout": 1.5},
    )


@settings(max_examples=400)
@given(TITLES, TEXTS | st.sampled_from(TRICKY), TEXTS | st.sampled_from(TRICKY))
@example("yes", "a\n\n  b \n", "\n")
@example("1:30", "x " * 100, "\tx\n")
@example("~", "word " * 40 + "\n" + "word " * 40, " \n a")
def test_read_again_it_is_the_same_plan(title: str, text: str, other: str) -> None:
    try:
        once = valid(written_with(title, text, other))
    except Exception:
        return  # `..` and the like are no paths
    assert valid(plan_as_yaml(once, head=[text, other])).digest == once.digest


@pytest.mark.parametrize("text", TRICKY)
def test_texts_that_yaml_could_read_as_something_else_stay_texts(text: str) -> None:
    once = valid(plan(subtask(1, description=text, check=text)))
    again = valid(plan_as_yaml(once)).plan.subtasks[0]
    assert (again.description, again.check) == (text, text)
