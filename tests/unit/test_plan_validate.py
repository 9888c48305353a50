"""Every rule of a plan, the answer to each broken one, and that they come all at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent_names import known_agents
from orchestrator.errors import BadInput, PlanError
from orchestrator.plan.model import Plan, SubTask
from orchestrator.plan.validate import load_plan, validate_plan
from orchestrator.prices import Price
from orchestrator.settings import load_settings
from tests.support.plans import AGENTS, BOOKSTORE, faults_of, group_ids, plan, subtask, the_fault_of, valid


def test_the_formats_example_is_valid_in_yaml_json_and_python() -> None:
    from_yaml = valid(BOOKSTORE)
    from_json = valid(json.dumps(from_yaml.plan.model_dump(mode="json")))
    assert group_ids(from_yaml) == group_ids(from_json) == {1: [1, 2], 2: [3]}
    assert from_yaml.groups == from_json.groups == valid(from_yaml.plan).groups
    assert [group.check for group in from_yaml.groups] == ["pytest -q", None]
    assert [one.kind for group in from_yaml.groups for one in group.subtasks] == ["work", "work", "testing"]
    assert from_yaml.groups[0].subtasks[1].agent.config == {"command": "python make_product.py"}
    assert from_yaml.warnings == ()


def test_all_faults_come_at_once_in_the_order_of_the_file_with_line_field_and_hint() -> None:
    text = """\
title: 12
max_paralel_agents: 3
timeout: 5m
subtasks:
  - {subtask_id: 1, title: A, parallel_group: 1, estimated_complexity: 130}
  - {subtask_id: 2, title: B, parallel_group: 2, depends_on: [3], agent: shel}
  - {subtask_id: 3, title: C, parallel_group: 2}
  - subtask_id: 4
    parallel_group: 3
    title: D
    title: E
deadline: soon
"""
    faults = [(fault.line, fault.field, fault.hint) for fault in faults_of(text)]
    assert faults == [
        (1, "title", "Put it in quotes."),
        (2, "max_paralel_agents", "Did you mean `max_parallel_agents`?"),
        (3, "timeout", "Write `timeout` under `defaults`, or on a subtask."),
        (5, "subtasks[0].estimated_complexity", ""),
        (6, "subtasks[1].depends_on", "Put subtask 2 into a group after 2."),
        (6, "subtasks[1].agent", "Did you mean 'shell'? The known agents are claude-code, scripted, shell."),
        (10, "subtasks[3].title", "Remove one of them."),
        (12, "deadline", ""),
    ]


def test_one_broken_word_of_the_defaults_hides_no_fault_of_their_agent() -> None:
    text = "title: A\ndefaults:\n  limits: {memory: lots}\n  agent: shel\nsubtasks: [{subtask_id: 1, title: A}]\n"
    faults = [(fault.line, fault.field) for fault in faults_of(text)]
    assert faults == [(3, "defaults.limits.memory"), (4, "defaults.agent")]
    # What an agent may do can't be judged without the word that is broken.
    unclear = text.replace("limits: {memory: lots}", "permissions: most").replace("shel", "shell")
    assert [fault.field for fault in faults_of(unclear)] == ["defaults.permissions"]


def test_the_last_word_of_a_key_is_understood() -> None:
    hints = {fault.field: fault.hint for fault in faults_of("title: A\nsubtasks: [{id: 1, title: A, group: 1}]\n")}
    assert hints["subtasks[0].id"] == "Did you mean `subtask_id`?"
    assert hints["subtasks[0].group"] == "Did you mean `parallel_group`?"


@pytest.mark.parametrize(
    ("words", "field", "says"),
    [
        ({"title": ""}, "title", "must not be empty"),
        ({"title": "two\nlines"}, "title", "one line"),
        ({"title": None}, "title", "must be text, not null"),
        ({"max_parallel_agents": 0}, "max_parallel_agents", "at least 1, not 0"),
        ({"max_parallel_agents": True}, "max_parallel_agents", "a whole number, not true"),
        ({"max_parallel_agents": 2.5}, "max_parallel_agents", "a whole number, not 2.5"),
        ({"parallelization_strategy": "files"}, "parallelization_strategy", "file_based"),
        ({"on_failure": "halt"}, "on_failure", "must be 'stop' or 'continue', not 'halt'"),
        ({"on_failure": {"quorum": 0}}, "on_failure.quorum", "at least 1"),
        ({"on_failure": {}}, "on_failure.quorum", "is missing"),
        ({"on_conflict": "rerun"}, "on_conflict", "`rerun` is not available yet"),
        ({"on_conflict": "resolve"}, "on_conflict", "`resolve` is not available yet"),
        ({"on_conflict": "merge"}, "on_conflict", "must be 'fail'"),
        ({"deadline": "soon"}, "deadline", "90s, 10m or 2h"),
        ({"max_cost_usd": 0}, "max_cost_usd", "more than 0"),
        ({"retry_failed_agents": "perhaps"}, "retry_failed_agents", "true or false, not 'perhaps'"),
        ({"agent_timeout_seconds": 0}, "agent_timeout_seconds", "more than 0"),
        ({"max_retries": -1}, "max_retries", "at least 0"),
        ({"group_checks": ["make"]}, "group_checks", "must be text"),
        ({"group_checks": {"one": "make"}}, "group_checks.one", "a whole number"),
        ({"defaults": []}, "defaults", "a mapping"),
        ({"defaults": {"agent": "shell", "limits": {"memory": "lots"}}}, "defaults.limits.memory", "512MiB"),
        ({"defaults": {"agent": {"command": "x"}}}, "defaults.agent.name", "is missing"),
        ({"repo": ""}, "repo", "must not be empty"),
        ({"repo": "~nobody-has-this-name/x"}, "repo", "no usable path"),
        ({"goal": "nul \0 byte"}, "goal", "can't be stored"),
        ({"subtasks": []}, "subtasks", "at least one entry"),
        ({"subtasks": {}}, "subtasks", "must be a list"),
    ],
)
def test_a_wrong_word_of_the_plan(words: dict[str, Any], field: str, says: str) -> None:
    fault = the_fault_of(plan(subtask(1, parallel_group=1)) | words)
    assert fault.field == field
    assert says in fault.message
    assert fault.message.endswith(".")


@pytest.mark.parametrize(
    ("words", "field", "says"),
    [
        ({"subtask_id": 0}, "subtask_id", "at least 1"),
        ({"subtask_id": "1"}, "subtask_id", "a whole number, not '1'"),
        ({"subtask_id": 2**31}, "subtask_id", "at most 2,147,483,647"),
        ({"parallel_group": 0}, "parallel_group", "at least 1"),
        ({"estimated_complexity": 100.5}, "estimated_complexity", "at most 100, not 100.5"),
        ({"estimated_complexity": float("nan")}, "estimated_complexity", "finite"),
        ({"estimated_duration_minutes": -1}, "estimated_duration_minutes", "at least 0"),
        ({"depends_on": 7}, "depends_on", "must be a list"),
        ({"depends_on": ["x"]}, "depends_on[0]", "a whole number"),
        ({"dependencies": ["x"]}, "dependencies[0]", "a whole number"),
        ({"files": ["/etc/passwd"]}, "files[0]", "inside the repository"),
        ({"files": ["a/../../b"]}, "files[0]", "inside the repository"),
        ({"requires": ["gpu.large"]}, "requires[0]", "letters, digits"),
        ({"kind": "tests"}, "kind", "'work' or 'testing'"),
        ({"timeout": 0}, "timeout", "more than 0"),
        ({"timeout_seconds": 5}, "timeout_seconds", "has no key"),
        ({"agent": {"name": "shell", "deep": {"n": float("inf")}}}, "agent", "JSON"),
        ({"agent": {"name": "shell", "command": "a\0b"}}, "agent", "can't be stored"),
        ({"agent": {"name": "shell", "command": "a\ud800b"}}, "agent", "can't be stored"),
        ({"agent": 5}, "agent", "must be a mapping"),
        ({"description": "half \ud800"}, "description", "stored"),
        ({"depends_on": [2], "dependencies": [3]}, "", "different values"),
        ({"status": "done"}, "status", "'pending'"),
    ],
)
def test_a_wrong_word_of_a_subtask(words: dict[str, Any], field: str, says: str) -> None:
    fault = the_fault_of(plan(subtask(1, **words), subtask(2), subtask(3)))
    assert fault.field == f"subtasks[0].{field}".rstrip(".")
    assert says in fault.message


def test_a_subtask_that_is_none() -> None:
    assert the_fault_of(plan(7)).field == "subtasks[0]"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"), [("", "is empty"), ("# nothing", "is empty"), ("- a", "mapping"), ("hello", "mapping")]
)
def test_a_text_that_holds_no_plan(text: str, says: str) -> None:
    assert says in the_fault_of(text).message


def test_an_id_used_twice() -> None:
    fault = the_fault_of(plan(subtask(1), subtask(4, title="X"), subtask(4, title="Y")))
    assert (fault.field, fault.hint) == ("subtasks[2].subtask_id", "The id 5 is free.")
    assert "'X'" in fault.message
    assert "'Y'" in fault.message


def test_a_dependency_that_does_not_exist() -> None:
    fault = the_fault_of(plan(subtask(1), subtask(2, depends_on=[1, 9])))
    assert (fault.field, fault.hint) == ("subtasks[1].depends_on", "The plan's ids are 1 and 2.")


def test_a_dependency_on_a_subtask_that_can_not_be_read_is_not_called_missing() -> None:
    assert the_fault_of(plan(subtask(1, depends_on=[2]), subtask(2, timeout="x"))).field == "subtasks[1].timeout"
    assert the_fault_of(plan(subtask(1, depends_on=[2]), subtask(2, subtask_id="2"))).field == "subtasks[1].subtask_id"


def test_a_rule_is_silent_where_what_it_rests_on_can_not_be_read() -> None:
    pair = (subtask(1, parallel_group=1, kind="testing"), subtask(2, parallel_group=1, depends_on=[1]))
    assert the_fault_of(plan(*pair, parallelization_strategy="dependancies")).hint == "Did you mean `dependencies`?"
    assert the_fault_of(plan(subtask(1), defaults={"agent": "shell", "timeout": "x"})).field == "defaults.timeout"
    half = plan(subtask(1, parallel_group=1), subtask(2, parallel_group="2"), group_checks={2: "make"})
    assert the_fault_of(half).field == "subtasks[1].parallel_group"


@pytest.mark.parametrize("strategy", ["parallel_groups", "dependencies", "file_based"])
def test_every_circle_is_found(strategy: str) -> None:
    written = plan(
        subtask(1, depends_on=[1]),
        subtask(2, depends_on=[4]),
        subtask(3, depends_on=[2]),
        subtask(4, depends_on=[3]),
        subtask(5, depends_on=[6, 2]),
        subtask(6, depends_on=[5]),
        subtask(7, depends_on=[6]),
        parallelization_strategy=strategy,
    )
    assert [fault.message for fault in faults_of(written)] == [
        "Subtask 1 depends on itself.",
        "The subtasks 2 → 4 → 3 → 2 depend on each other in a circle.",
        "The subtasks 5 → 6 → 5 depend on each other in a circle.",
    ]


@pytest.mark.parametrize(("group", "which"), [(2, "the same group"), (3, "the later group 3")])
@pytest.mark.parametrize("strategy", ["parallel_groups", "file_based"])
def test_a_dependency_in_the_same_or_a_later_group(group: int, which: str, strategy: str) -> None:
    written = plan(
        subtask(1, parallel_group=group),
        subtask(2, parallel_group=2, depends_on=[1]),
        parallelization_strategy=strategy,
    )
    assert which in the_fault_of(written).message


def test_a_dependency_in_a_later_group_is_found_through_subtasks_without_a_group() -> None:
    written = plan(
        subtask(1, parallel_group=2),
        subtask(2, depends_on=[1]),
        subtask(3, depends_on=[2]),
        subtask(4, parallel_group=2, depends_on=[3]),
    )
    fault = the_fault_of(written)
    assert fault.message == "Subtask 4 of group 2 depends on 1 of the same group through 3, which has no group."


@pytest.mark.parametrize(
    ("title", "testing"),
    [
        ("Run tests", True),
        ("Test the models", True),
        ("Integration TESTING", True),
        ("unit-test run", True),
        ("Use the latest release", False),
        ("Enter the contest", False),
        ("Attestation service", False),
        ("Rename test_user", False),
        ("Detestable", False),
    ],
)
def test_a_title_makes_a_testing_subtask_by_the_whole_word(title: str, testing: bool) -> None:
    written = plan(subtask(1, parallel_group=1, title=title), subtask(2, parallel_group=1))
    if testing:
        fault = the_fault_of(written)
        assert fault.field == "subtasks[0].parallel_group"
        assert "`kind: work`" in fault.hint
    else:
        assert [one.kind for one in valid(written).groups[0].subtasks] == ["work", "work"]


def test_a_written_kind_comes_before_the_title() -> None:
    quiet = plan(subtask(1, parallel_group=1, title="Run tests", kind="work"), subtask(2, parallel_group=1))
    assert valid(quiet).groups[0].subtasks[0].kind == "work"
    loud = plan(subtask(1, parallel_group=1, kind="testing"), subtask(2, parallel_group=1))
    assert "must be alone" in the_fault_of(loud).message


def test_two_testing_subtasks_in_one_group_are_two_faults() -> None:
    written = plan(*(subtask(n, parallel_group=1, kind="testing") for n in (1, 2)))
    assert [fault.field for fault in faults_of(written)] == ["subtasks[0].parallel_group", "subtasks[1].parallel_group"]


def test_a_written_group_is_refused_under_dependencies() -> None:
    written = plan(subtask(1), subtask(2, parallel_group=1), parallelization_strategy="dependencies")
    assert the_fault_of(written).field == "subtasks[1].parallel_group"


@pytest.mark.parametrize("strategy", ["parallel_groups", "file_based"])
def test_a_check_for_a_group_that_has_no_subtask(strategy: str) -> None:
    written = plan(subtask(1, parallel_group=1), parallelization_strategy=strategy, group_checks={1: "a", 2: "b"})
    fault = the_fault_of(written)
    assert (fault.field, fault.hint) == ("group_checks.2", "The groups are 1.")


def test_a_check_for_a_level_that_does_not_exist() -> None:
    written = plan(subtask(1), parallelization_strategy="dependencies", group_checks={2: "b"})
    assert the_fault_of(written).field == "group_checks.2"


def test_an_unknown_default_agent_matters_when_it_is_written_or_used() -> None:
    own = subtask(1, agent="shell")
    assert the_fault_of(plan(own, defaults={"agent": "claude-cod"})).hint.startswith("Did you mean 'claude-code'?")
    with pytest.raises(PlanError):
        validate_plan(plan(subtask(1), defaults={}), known_agents=["shell"])
    assert validate_plan(plan(own, defaults={}), known_agents=["shell"])


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"agent_timeout_seconds": 60, "defaults": {"agent": "shell", "timeout": "2m"}}, "agent_timeout_seconds"),
        ({"agent_timeout_seconds": 60, "defaults": {"agent": "shell", "timeout": None}}, "agent_timeout_seconds"),
        ({"max_retries": 1, "defaults": {"agent": "shell", "max_retries": 2}}, "max_retries"),
    ],
)
def test_saying_a_thing_twice_with_different_values(words: dict[str, Any], field: str) -> None:
    assert the_fault_of(plan(subtask(1)) | words).field == field


def test_saying_a_thing_twice_with_one_value_is_no_fault() -> None:
    twice = {"agent_timeout_seconds": 60, "max_retries": 1}
    written = plan(subtask(1), **twice, defaults={"agent": "shell", "timeout": "1m", "max_retries": 1})
    assert valid(written).groups[0].subtasks[0].timeout_seconds == 60


def test_more_subtasks_than_a_plan_may_have() -> None:
    assert len(valid(plan(*(subtask(n) for n in range(1, 10_001)))).groups) == 10_000
    fault = the_fault_of(plan(*(subtask(n) for n in range(1, 10_002))))
    assert fault.message == "`subtasks` must have at most 10,000 entries."


def test_a_plan_from_python_is_held_to_the_same_rules() -> None:
    built = Plan(title="x", subtasks=[SubTask(subtask_id=1, title="a", dependencies=[1], agent="shell")])  # type: ignore[arg-type]
    assert the_fault_of(built).message == "Subtask 1 depends on itself."


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (plan(subtask(1, description=" ")), "Subtask 1 has no description"),
        (plan(subtask(1), base="main"), "`base` has no effect"),
        (plan(subtask(1), subtask(2)), "Subtasks 1 and 2 have no `parallel_group`"),
        (plan(subtask(1), parallelization_strategy="file_based"), "Subtask 1 has no `files`"),
        (
            plan(subtask(1, parallel_group=3, files=["src"]), subtask(2, parallel_group=3, files=["src/a", "src/b"])),
            "Group 3: subtasks 1 and 2 mean to touch src/a, src/b; their changes may conflict.",
        ),
    ],
)
def test_warnings(written: dict[str, Any], says: str) -> None:
    (warning,) = valid(written).warnings
    assert says in warning


def test_files_that_do_not_overlap_at_the_same_time_are_no_warning() -> None:
    apart = plan(subtask(1, parallel_group=1, files=["a"]), subtask(2, parallel_group=2, files=["a"]))
    assert valid(apart).warnings == ()


@pytest.mark.parametrize("written", [".", "../other", "~/code", "/abs/../abs/repo"])
def test_a_path_of_a_repository_is_relative_to_the_plans_folder_and_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "plan.yaml").write_text(BOOKSTORE.replace("repo: .", f"repo: {written}"))
    expected = {
        ".": folder,
        "../other": tmp_path / "other",
        "~/code": tmp_path / "home" / "code",
        "/abs/../abs/repo": Path("/abs/repo"),
    }
    loaded = load_plan(folder / "plan.yaml", known_agents=AGENTS)
    assert loaded.plan.repo == str(expected[written])
    assert loaded.source == str(folder / "plan.yaml")


@pytest.mark.parametrize(
    "url", ["git@host:x/y.git", "https://host/x.git", "ssh://host/x", "file:///srv/x.git", "host:x"]
)
def test_a_url_of_a_repository_stays_as_it_is(tmp_path: Path, url: str) -> None:
    (tmp_path / "plan.yaml").write_text(BOOKSTORE.replace("repo: .", f"repo: {url}"))
    assert load_plan(tmp_path / "plan.yaml", known_agents=AGENTS).plan.repo == url


def test_another_folder_can_be_named_for_the_repository(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(BOOKSTORE)
    assert load_plan(tmp_path / "plan.yaml", known_agents=AGENTS, base_dir="/srv").plan.repo == "/srv"


def test_a_file_that_can_not_be_read_is_one_line(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, says in [
        (tmp_path / "none.yaml", "There is no plan"),
        (tmp_path, "is a folder"),
        (loop, "can't be read"),
        (tmp_path / ("n" * 5000), "can't be read"),
        ("nul\0", "can't be read"),
    ]:
        with pytest.raises(BadInput) as raised:
            load_plan(path, known_agents=AGENTS)
        assert says in raised.value.message
        assert "\n" not in str(raised.value)
        assert raised.value.recovery


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(BOOKSTORE)
    (tmp_path / "plan.yaml").chmod(0)
    with pytest.raises(BadInput, match="Permission denied"):
        load_plan(tmp_path / "plan.yaml", known_agents=AGENTS)


def test_the_source_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("title: x")
    with pytest.raises(PlanError, match=r"p\.yaml has 1 fault: `subtasks` is missing"):
        load_plan(tmp_path / "p.yaml", known_agents=AGENTS)


def test_an_agents_configuration_is_checked_with_the_rest_of_the_plan() -> None:
    known = known_agents(load_settings())
    text = """
title: Two faults
subtasks:
  - subtask_id: 1
    title: first
    agent: {name: shell, comand: "true"}
  - {subtask_id: 2, title: second, depends_on: [9]}
"""
    with pytest.raises(PlanError) as raised:
        validate_plan(text, known_agents=known)
    by_line = {fault.line: fault.message for fault in raised.value.faults}
    assert "comand" in by_line[6]
    assert "command" in by_line[6]
    assert len(by_line) == 2, "the other fault is in the same answer"


def budget_warnings(*agents: Any, prices: dict[str, Price] | None = None) -> tuple[str, ...]:
    subtasks = [subtask(number, parallel_group=1, agent=agent) for number, agent in enumerate(agents, 1)]
    written = plan(*subtasks, max_cost_usd=5, defaults={})
    return validate_plan(written, known_agents=known_agents(load_settings()), prices=prices).warnings


def test_a_budget_that_nobody_can_measure_is_a_warning() -> None:
    shell = {"name": "shell", "command": "true"}
    assert budget_warnings(shell) == ("`max_cost_usd` has no effect: none of the plan's agents tells what it costs.",)
    assert budget_warnings(shell, "claude-code") == ()
    assert budget_warnings({"name": "codex", "model": "gpt-5.3-codex"}) == ()
    assert budget_warnings("codex") == (
        "`max_cost_usd` counts codex only if its model has a price, and the plan names no `model`.",
    )
    unheard_of = {"name": "codex", "model": "gpt-x"}
    assert budget_warnings(unheard_of, unheard_of, "claude-code") == (
        "`max_cost_usd` can't count codex with the model gpt-x, which has no price: see the setting `prices`.",
    )
    assert budget_warnings(unheard_of, prices={"gpt-x": Price(input=1, output=1)}) == ()
    without = validate_plan(plan(subtask(1, agent=shell), defaults={}), known_agents=known_agents(load_settings()))
    assert without.warnings == (), "no budget, nothing to say"
