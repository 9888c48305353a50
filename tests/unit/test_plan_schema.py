"""The JSON Schema and the reference that is written from it: both say what the validator does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.plan.model import Defaults, Limits, Plan, SubTask
from orchestrator.plan.parse import parse_document
from orchestrator.plan.reference import plan_reference
from orchestrator.plan.schema import plan_schema
from tests.support.plans import BOOKSTORE, plan, subtask

MODELS: list[tuple[type[BaseModel], str]] = [(Defaults, "Defaults"), (SubTask, "SubTask"), (Limits, "Limits")]


def keys_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_the_schema_knows_every_key_and_no_other() -> None:
    schema = plan_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == keys_of(Plan)
    assert schema["additionalProperties"] is False
    for model, name in MODELS:
        definition = schema["$defs"][name]
        assert set(definition["properties"]) - {"dependencies"} == keys_of(model)
        assert definition["additionalProperties"] is False


def test_every_key_of_the_schema_is_described() -> None:
    schema = plan_schema()
    for properties in (schema["properties"], *(schema["$defs"][name]["properties"] for _, name in MODELS)):
        assert all(field["description"] for field in properties.values())


def test_the_schema_accepts_the_formats_example() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(plan_schema())
    jsonschema.validate(parse_document(BOOKSTORE).data, plan_schema())
    jsonschema.validate(plan(subtask(1, dependencies=[2], timeout=5)), plan_schema())


@pytest.mark.parametrize(
    "words",
    [
        {"titel": "x"},
        {"on_conflict": "rerun"},
        {"on_failure": {"quorum": 0}},
        {"deadline": "soon"},
        {"max_parallel_agents": 0},
        {"defaults": {"timeout_seconds": 5}},
        {"defaults": {"limits": {"memory": "lots"}}},
        {"subtasks": []},
        {"subtasks": [{"title": "no id"}]},
        {"subtasks": [subtask(1, agent=5)]},
    ],
)
def test_the_schema_refuses_what_the_validator_refuses(words: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plan(subtask(1)) | words, plan_schema())


def test_the_reference_has_a_row_for_every_key_with_its_default() -> None:
    text = plan_reference()
    for model in (Plan, *(model for model, _ in MODELS)):
        for key in keys_of(model):
            assert f"| `{key}` |" in text
    rows = {
        row.split("|")[1].strip(" `"): row for row in text.split("Keys of a subtask")[0].splitlines() if row[:1] == "|"
    }
    assert "| `10m` |" in rows["timeout"]
    assert "at least 1, at most 10,000" in rows["max_parallel_agents"]
    assert "| required |" in rows["title"]
    assert "| `4GiB` |" in text
    assert "that of `defaults.timeout`" in text


def test_every_link_of_the_reference_leads_to_a_heading() -> None:
    text = plan_reference()
    headings = [
        re.sub(r"[^\w-]", "", line[3:].lower().replace(" ", "-")) for line in text.splitlines() if line[:3] == "## "
    ]
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= set(headings)
