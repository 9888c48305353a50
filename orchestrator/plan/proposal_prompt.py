"""What the agent that proposes a plan is told: a pure function. The frame of every prompt (`prompt.py`) stands around it."""

from __future__ import annotations

import json
from typing import Any, Final

from orchestrator.errors import Fault
from orchestrator.plan.prompt import fenced, shortened
from orchestrator.plan.proposal import Rejected, Terms, proposal_schema

MOST_FAULTS: Final = 50
MAX_EARLIER_ANSWER_BYTES: Final = 64 * 1024

_EXAMPLE: Final[dict[str, Any]] = {
    "title": "Bookstore models",
    "group_checks": {"1": "python -m compileall -q src"},
    "subtasks": [
        {
            "subtask_id": 1,
            "title": "Implement the User model",
            "description": "Create class User in src/models/user.py, on the Base of src/base.py, with id, e-mail (unique) and name. "
            "Add tests/test_user.py for it.",
            "parallel_group": 1,
            "files": ["src/models/user.py", "tests/test_user.py"],
            "estimated_complexity": 30,
            "estimated_duration_minutes": 15,
        },
        {
            "subtask_id": 2,
            "title": "Implement the Product model",
            "description": "Create class Product in src/models/product.py, on the Base of src/base.py, with id, title and price in "
            "cents. Add tests/test_product.py for it.",
            "parallel_group": 1,
            "files": ["src/models/product.py", "tests/test_product.py"],
            "estimated_complexity": 30,
            "estimated_duration_minutes": 15,
        },
        {
            "subtask_id": 3,
            "title": "Run the whole test suite",
            "description": "Run pytest and mend what the new models broke.",
            "kind": "testing",
            "parallel_group": 2,
            "depends_on": [1, 2],
            "estimated_complexity": 20,
            "estimated_duration_minutes": 10,
            "check": "python -m pytest -q",
        },
    ],
}

_PLACE: Final = (
    "Read this repository, as far as the goal below needs it, and cut the work that is left into subtasks for coding agents. Change "
    "nothing: your answer is the plan."
)
_NO_PLACE: Final = (
    "Cut the goal below into subtasks for coding agents. There is no repository: each agent gets an empty folder, and your answer is "
    "the plan."
)


def proposal_prompt(terms: Terms, rejected: Rejected | None = None) -> str:
    """Markdown. `rejected` is the answer before, whose faults the next one must not have."""
    sections = [
        _PLACE if terms.repo is not None else _NO_PLACE,
        f"## The goal\n\n{fenced(terms.goal.strip())}",
        _a_good_plan(terms),
        _earlier_answer(rejected) if rejected is not None else "",
        _form(terms),
    ]
    return "\n\n".join(section for section in sections if section)


def _a_good_plan(terms: Terms) -> str:
    rules = [
        "Subtasks with the same `parallel_group` run at the same time; groups run one after the other, in ascending order, and each "
        "starts from the merged work of those before it.",
        "Subtasks of one group are independent: none needs what another of its group makes, and no two change the same file. Each "
        "works in a git clone of its own, and what overlaps is a merge conflict, which fails.",
        "What several subtasks need (an interface, a schema, a helper) is made first, by one subtask of an earlier group, and they "
        "name it in `depends_on`. A dependency is always in an earlier group.",
        f"At most {terms.max_parallel_agents} agents work at the same time. A subtask is worth an agent's ten minutes to an hour; a "
        "goal that is no more than that is a plan of one subtask.",
        "`title` is one line. Beside it `description` is all that the agent is told: what to do, where, and when it is done. It can't "
        "ask, and it does not see the other subtasks' descriptions.",
        "`files` names every file or folder that the subtask means to change or create, as paths from the repository's root, without "
        "wildcards where you know better.",
        "Tests of its own change are a part of each subtask. A subtask whose work is testing (running or writing the tests of what "
        "others made) has `kind: testing` and a group of its own after theirs.",
        "Estimates are an agent's: `estimated_duration_minutes`, and `estimated_complexity` from 0 to 100.",
    ]
    if terms.with_checks:
        rules.append(
            "`group_checks` (by group number, run on the merged work) and `check` of a subtask (run in its folder) are shell commands "
            "that must succeed. Propose those that this repository has, quick ones, that work in a fresh clone; if you are not sure "
            "that one does, leave it out."
        )
    rules.append(
        "Which agent works where, with what permissions and limits, is not yours to decide: words for that are refused."
    )
    return "## A good plan\n\n" + "\n".join(f"- {rule}" for rule in rules)


def _earlier_answer(rejected: Rejected) -> str:
    lines = [f"- {fault_in_words(fault)}" for fault in rejected.faults[:MOST_FAULTS]]
    if len(rejected.faults) > MOST_FAULTS:
        lines.append(f"- and {len(rejected.faults) - MOST_FAULTS} more")
    answer = shortened(rejected.answer.strip(), MAX_EARLIER_ANSWER_BYTES) or "(nothing)"
    faults = "\n".join(lines)
    return (
        "## Your earlier answer was refused\n\nMend each of these faults, keep what is good, and answer with the whole plan again:"
        f"\n\n{faults}\n\nThe earlier answer:\n\n{fenced(answer)}"
    )


def fault_in_words(fault: Fault) -> str:
    """``subtasks[2].depends_on`: … (…)`: where it is, what is wrong, how to mend it."""
    where = f"`{fault.field}`: " if fault.field else ""
    return f"{where}{fault.message}{f' ({fault.hint})' if fault.hint else ''}"


def _form(terms: Terms) -> str:
    schema = json.dumps(proposal_schema(terms), separators=(",", ":"), ensure_ascii=False)
    example = json.dumps(_example(terms), indent=1, ensure_ascii=False)
    return (
        f"## The form of your answer\n\nIts JSON Schema:\n\n{fenced(schema)}\n\nAn example, for another goal:\n\n{fenced(example)}\n\n"
        "End with one JSON object of that form and nothing else: no Markdown around it, no words before or after it."
    )


def _example(terms: Terms) -> dict[str, Any]:
    subtasks = [{key: one[key] for key in terms.words_of_subtask if key in one} for one in _EXAMPLE["subtasks"]]
    return {key: _EXAMPLE[key] for key in terms.words_of_plan} | {"subtasks": subtasks}
