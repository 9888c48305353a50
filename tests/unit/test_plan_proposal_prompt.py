"""What an agent that is asked for a plan is told: whole texts against golden files, and their bounds."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from orchestrator.agent_names import known_agents
from orchestrator.errors import Fault
from orchestrator.plan.model import AgentSpec
from orchestrator.plan.proposal import Proposal, Rejected, Terms, proposal_schema, read_proposal
from orchestrator.plan.proposal_prompt import MAX_EARLIER_ANSWER_BYTES, MOST_FAULTS, proposal_prompt
from orchestrator.settings import load_settings

GOLDEN = Path(__file__).parent / "golden"
TERMS = Terms("Add the persistence layer.\n", AgentSpec(name="claude-code"), "/srv/shop", max_parallel_agents=3)
WITHOUT = Terms("Write a poem.", AgentSpec(name="claude-code"), with_checks=False)


def example_in(prompt: str) -> str:
    return prompt.split("An example, for another goal:\n\n```text\n")[1].split("\n```", maxsplit=1)[0]


def test_the_whole_first_question() -> None:
    assert proposal_prompt(TERMS) + "\n" == (GOLDEN / "proposal_first_question.md").read_text()


def test_the_whole_question_after_an_answer_with_faults() -> None:
    faults = (
        Fault(
            "Subtask 2 depends on 7, and the plan has no subtask of that id.", "subtasks[1].depends_on", hint="Ids: 1."
        ),
        Fault("The answer holds 2 plans."),
    )
    text = proposal_prompt(TERMS, Rejected("```json\n{}\n```", faults))
    assert text + "\n" == (GOLDEN / "proposal_after_faults.md").read_text()


@pytest.mark.parametrize("terms", [TERMS, WITHOUT], ids=["with checks", "without"])
def test_its_example_fits_its_schema_and_would_be_accepted(terms: Terms) -> None:
    answer = example_in(proposal_prompt(terms))
    jsonschema.validate(json.loads(answer), proposal_schema(terms))
    found = read_proposal(answer, terms, known_agents(load_settings()))
    assert isinstance(found, Proposal)
    assert (found.notes, found.plan.warnings) == ((), ())


def test_without_checks_no_command_is_spoken_of() -> None:
    assert "check" in proposal_prompt(TERMS)
    assert "check" not in proposal_prompt(WITHOUT)


def test_faults_and_the_earlier_answer_are_bounded() -> None:
    faults = tuple(Fault(f"Fault {number}.") for number in range(MOST_FAULTS + 5))
    text = proposal_prompt(TERMS, Rejected("x" * 500_000, faults))
    assert len(text) < len(proposal_prompt(TERMS)) + MAX_EARLIER_ANSWER_BYTES + 4_000
    assert f"Fault {MOST_FAULTS - 1}." in text
    assert "- and 5 more" in text
    assert "500000 bytes, cut here" in text
    assert "(nothing)" in proposal_prompt(TERMS, Rejected("", faults))
