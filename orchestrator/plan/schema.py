"""The plan's JSON Schema, for editors and for other programs that write plans."""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema

from orchestrator.plan.model import Plan

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _WithoutDerivedTitles(GenerateJsonSchema):
    """A title made from an attribute's name (`Timeout Seconds`) would contradict the key that a plan uses."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def plan_schema() -> dict[str, Any]:
    """The schema of a plan's document. It describes each value alone; what they mean together `validate_plan`
    checks."""
    schema = Plan.model_json_schema(by_alias=True, schema_generator=_WithoutDerivedTitles)
    definitions = schema["$defs"]
    subtask = definitions["SubTask"]["properties"]
    subtask["dependencies"] = {**subtask["depends_on"], "description": "another word for `depends_on`"}
    agent = definitions["AgentSpec"]
    definitions["AgentSpec"] = {
        "description": agent["description"],
        "anyOf": [
            {"type": "string", **{key: agent["properties"]["name"][key] for key in ("minLength", "maxLength")}},
            {key: agent[key] for key in ("type", "properties", "required")} | {"additionalProperties": True},
        ],
    }
    return {"$schema": DIALECT, "title": "Plan", **schema}
