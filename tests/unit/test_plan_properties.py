"""Whatever is handed in: a valid plan or a `PlanError`, never anything else; and what holds for every valid plan."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import PlanError
from orchestrator.plan.faults import field_in_words
from orchestrator.plan.model import Defaults, Limits, Plan, SubTask, ValidatedPlan
from orchestrator.plan.validate import validate_plan
from tests.support.plans import AGENTS, BOOKSTORE, subtask

ANY_TEXT = st.text(st.characters(), max_size=30)
WORDS = sorted(
    {field.alias or name for model in (Plan, Defaults, SubTask, Limits) for name, field in model.model_fields.items()}
    | {"name", "command", "config", "quorum", "dependencies", "<<", "timeout_seconds"}
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(
        ["10m", "4GiB", "shell", "testing", "dependencies", "file_based", "stop", "fail", "Run tests", "\0"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | ANY_TEXT, inner, max_size=5),
    max_leaves=30,
)
YAML_TEXT = st.text("title:subtasks {}[],&*!|>\"'\\#?-.<%~=\n\n\t\0019xudé", max_size=40)


def check(written: Any) -> ValidatedPlan | None:
    try:
        return validate_plan(written, known_agents=AGENTS)
    except PlanError as error:
        faults = error.faults
    assert faults
    for fault in faults:
        assert fault.message.endswith(".")
        assert "\n" not in fault.message + fault.field + fault.hint
        assert fault.line is None or fault.line >= 1
    return None


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes(written: bytes) -> None:
    check(written)


@settings(max_examples=150)
@given(st.text(st.characters(exclude_categories=()), max_size=100))
def test_any_text(written: str) -> None:
    check(written)


@settings(max_examples=200)
@given(YAML_TEXT)
@example("{")
@example("? ? ?")
@example("a: 1e999\nb: " + "9" * 5000)
def test_any_yaml(written: str) -> None:
    check(written)


@settings(max_examples=100)
@given(st.integers(0, len(BOOKSTORE)), st.integers(0, 40), ANY_TEXT)
def test_the_formats_example_with_a_piece_replaced(start: int, length: int, piece: str) -> None:
    check(BOOKSTORE[:start] + piece + BOOKSTORE[start + length :])


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6),
    st.lists(st.dictionaries(st.sampled_from(WORDS), VALUES)),
)
def test_any_mapping(words: dict[str, Any], subtasks: list[dict[str, Any]]) -> None:
    numbered = [subtask(position) | own for position, own in enumerate(subtasks, start=1)]
    check({"title": "x", "subtasks": numbered} | words)
    check({"title": "x", "defaults": {"agent": "shell"}, "subtasks": numbered})


def test_hostile_python() -> None:
    loop: dict[str, Any] = {"title": "x"}
    loop["subtasks"] = [loop]
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    config: dict[str, Any] = {"name": "shell", "deep": deep}
    circle: dict[str, Any] = {"name": "shell"}
    circle["again"] = circle
    for written in (
        loop,
        {"title": "x", "subtasks": [subtask(1, agent=config)]},
        {"title": "x", "subtasks": [subtask(1, agent=circle)]},
        {"title": "x", "subtasks": iter([subtask(1, timeout="x")])},
        {"title": "x", "subtasks": {1, 2}, 5: 6},
        {"title": object(), "subtasks": [subtask(1, estimated_complexity=10**5000)]},
        {"title": b"\xff", "subtasks": [subtask(1) | {"subtask_id": 10**5000}]},
    ):
        assert check(written) is None


@st.composite
def sound_plans(draw: st.DrawFn) -> dict[str, Any]:
    """Plans that keep every rule: ids in any order, dependencies only on subtasks that come earlier."""
    strategy = draw(st.sampled_from(["parallel_groups", "dependencies", "file_based"]))
    ids = draw(st.lists(st.integers(1, 50), unique=True, min_size=1, max_size=12))
    groups = sorted(
        draw(st.lists(st.none() | st.integers(1, 5), min_size=len(ids), max_size=len(ids))), key=lambda g: g or 0
    )
    subtasks = []
    for position, (subtask_id, group) in enumerate(zip(ids, groups, strict=True)):
        written = None if strategy == "dependencies" else group
        earlier = [one for one, its in zip(ids[:position], groups, strict=False) if written is None or its != group]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        files = draw(st.lists(st.sampled_from(["a", "a/b", "c", "a/b/c.py"]), unique=True, max_size=2))
        kind = draw(st.sampled_from(["work", "testing"])) if written is None else "work"
        own = {"depends_on": needs, "files": files, "kind": kind}
        subtasks.append(subtask(subtask_id, **own) | ({} if written is None else {"parallel_group": written}))
    return {"title": "x", "parallelization_strategy": strategy, "defaults": {"agent": "shell"}, "subtasks": subtasks}


@settings(max_examples=150)
@given(sound_plans())
def test_what_holds_for_every_valid_plan(written: dict[str, Any]) -> None:
    validated = validate_plan(json.dumps(written), known_agents=AGENTS)
    place = {one.subtask_id: position for position, group in enumerate(validated.groups) for one in group.subtasks}
    assert sorted(place) == sorted(one["subtask_id"] for one in written["subtasks"])
    assert sum(len(group.subtasks) for group in validated.groups) == len(place)
    numbers = [group.number for group in validated.groups]
    assert numbers == sorted(set(numbers))
    first_written = min((place[one["subtask_id"]] for one in written["subtasks"] if "parallel_group" in one), default=0)
    needed = {dependency for one in written["subtasks"] for dependency in one["depends_on"]}
    for group in validated.groups:
        ids = [one.subtask_id for one in group.subtasks]
        assert ids == sorted(ids)
        assert len(ids) == 1 or all(one.kind == "work" for one in group.subtasks)
        for one in group.subtasks:
            assert one.group_number == group.number
            assert all(place[dependency] < place[one.subtask_id] for dependency in one.depends_on)
            assert place[one.subtask_id] >= first_written or one.subtask_id in needed
    by_group: dict[int, list[int]] = {}
    for one in written["subtasks"]:
        if "parallel_group" in one:
            by_group.setdefault(one["parallel_group"], []).append(place[one["subtask_id"]])
    ends = [(min(places), max(places)) for _, places in sorted(by_group.items())]
    assert all(earlier[1] < later[0] for earlier, later in pairwise(ends))
    assert validate_plan(written, known_agents=AGENTS).digest == validated.digest


def test_a_field_is_written_as_a_path() -> None:
    assert field_in_words(("subtasks", 2, "depends_on", 0)) == "subtasks[2].depends_on[0]"
    assert field_in_words(()) == ""
