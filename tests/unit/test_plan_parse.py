"""Text → plain data and lines: what is read, and what is refused before it is built."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import Fault, PlanError
from orchestrator.plan.parse import MAX_ALIASED_VALUES, MAX_BYTES, MAX_DEPTH, parse_document


def refused(text: str | bytes) -> Fault:
    with pytest.raises(PlanError) as raised:
        parse_document(text)
    (fault,) = raised.value.faults
    assert fault.message.endswith(".")
    return fault


def test_each_key_and_entry_has_its_line() -> None:
    document = parse_document(
        "title: x\nsubtasks:\n  - subtask_id: 1\n    title: >\n      folded\n  - {subtask_id: 2}\n"
    )
    assert document.data == {"title": "x", "subtasks": [{"subtask_id": 1, "title": "folded\n"}, {"subtask_id": 2}]}
    assert document.lines["title",] == 1
    assert document.lines["subtasks", 0] == 3
    assert document.lines["subtasks", 0, "title"] == 4
    assert document.lines["subtasks", 1, "subtask_id"] == 6


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[1, -2, 0x10, 0o17, 1.5, 1e3, .5, true, False, null, ~, '1', yes, 1:30, 2024-01-01, 1_000, !!str 7]"
    read = parse_document(text).data
    assert read == [
        1,
        -2,
        16,
        15,
        1.5,
        1000.0,
        0.5,
        True,
        False,
        None,
        None,
        "1",
        "yes",
        "1:30",
        "2024-01-01",
        "1_000",
        "7",
    ]
    assert [type(value) for value in read[:6]] == [int, int, int, int, float, float]


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_is_read_as_json_reads_it(indent: int | str | None, ascii_only: bool) -> None:
    data = {"title": 'snake \U0001f40d \\ud83d " / é', "list": [1, 2.5, True, None, {}, []], "1": "one"}
    assert parse_document(json.dumps(data, indent=indent, ensure_ascii=ascii_only)).data == data


def test_keys_are_text_as_in_json() -> None:
    assert parse_document("{1: a, true: b}").data == {"1": "a", "true": "b"}


def test_a_key_that_stands_twice_is_kept_for_the_report_and_the_first_value_counts() -> None:
    document = parse_document("a: 1\nb: {c: 1}\nb: {c: 2}\na: 3\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert document.duplicates == [(("b",), 3), (("a",), 4)]
    assert document.lines["b", "c"] == 2


def test_a_syntax_error_names_its_line() -> None:
    assert refused("title: x\nsubtasks: [1, 2\n").line == 3
    assert refused("a: b: c").line == 1


def test_aliases_are_expanded_within_a_budget() -> None:
    assert parse_document("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert f"{MAX_ALIASED_VALUES:,}" in refused(bomb).message


def test_an_alias_inside_of_itself_or_without_an_anchor_is_refused() -> None:
    assert "inside" in refused("a: &a\n  b: *a\n").message
    assert "no anchor" in refused("a: *nobody").message


@pytest.mark.parametrize("opening", ["[", "- ", "{a: "])
def test_depth_is_bounded(opening: str) -> None:
    assert f"deeper than {MAX_DEPTH}" in refused(opening * 100_000).message


def test_size_is_bounded_in_bytes() -> None:
    assert "16 MiB" in refused("é" * (MAX_BYTES // 2 + 1)).message
    assert "16 MiB" in refused(b"x" * (MAX_BYTES + 1)).message
    assert "1,000,000 values" in refused("[" + "1," * 1_000_001 + "1]").message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !secret x", "tag"),
        ("base: &b {x: 1}\nc:\n  <<: *b\n", "`<<`"),
        ("[1]: a", "key"),
        ("a: 1\n--- \nb: 2\n", "more than one document"),
        (b"title: \xff", "UTF-8"),
        ("a: \x01", "characters"),
        ("title: \ud800", "characters"),
    ],
)
def test_what_is_no_plan_is_refused(text: str | bytes, says: str) -> None:
    assert says in refused(text).message
