"""The three strategies, and where a subtask without a group goes."""

from __future__ import annotations

import pytest

from tests.support.plans import group_ids, plan, subtask, valid


def test_written_groups_stay_as_they_are_numbers_too() -> None:
    written = plan(subtask(9, parallel_group=30), subtask(2, parallel_group=10), subtask(1, parallel_group=10))
    assert group_ids(valid(written)) == {10: [1, 2], 30: [9]}


def test_a_subtask_without_a_group_runs_alone_after_the_written_ones_in_id_order() -> None:
    written = plan(subtask(4), subtask(3), subtask(2, parallel_group=1), subtask(1, parallel_group=2))
    assert group_ids(valid(written)) == {1: [2], 2: [1], 3: [3], 4: [4]}


def test_a_subtask_without_a_group_runs_just_before_the_group_that_needs_it() -> None:
    written = plan(
        subtask(1, parallel_group=1),
        subtask(2, parallel_group=2, depends_on=[8]),
        subtask(3, parallel_group=3),
        subtask(8, depends_on=[9, 1]),
        subtask(9, depends_on=[1]),
    )
    assert group_ids(valid(written)) == {1: [1], 2: [9], 3: [8], 4: [2], 5: [3]}


def test_only_a_group_that_needs_it_lets_a_subtask_run_before_the_first_group() -> None:
    written = plan(subtask(1), subtask(2), subtask(3, parallel_group=1, depends_on=[2]))
    assert group_ids(valid(written)) == {1: [2], 2: [3], 3: [1]}


def test_subtasks_without_a_group_keep_to_their_dependencies_before_their_ids() -> None:
    assert group_ids(valid(plan(subtask(1, depends_on=[3]), subtask(2), subtask(3)))) == {1: [2], 2: [3], 3: [1]}


def test_dependencies_makes_levels() -> None:
    written = plan(
        subtask(1, depends_on=[4]),
        subtask(2),
        subtask(3, depends_on=[1, 2]),
        subtask(4),
        subtask(5, depends_on=[2]),
        parallelization_strategy="dependencies",
    )
    assert group_ids(valid(written)) == {1: [2, 4], 2: [1, 5], 3: [3]}


def test_dependencies_gives_each_testing_subtask_a_group_of_its_own() -> None:
    written = plan(
        subtask(1),
        subtask(2, depends_on=[1], kind="testing"),
        subtask(3, depends_on=[1]),
        subtask(4, depends_on=[1], title="Run tests"),
        subtask(5, depends_on=[2]),
        parallelization_strategy="dependencies",
    )
    assert group_ids(valid(written)) == {1: [1], 2: [3], 3: [2], 4: [4], 5: [5]}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a.py", "a.py", True),
        ("./a.py", "a.py", True),
        ("src", "src/a.py", True),
        ("src/a.py", "src/", True),
        ("src/*.py", "src/deep/a.py", True),
        (".", "a.py", True),
        ("src/a.py", "src/a.pyi", False),
        ("src/a", "src/ab/c", False),
        ("*.md", "docs/x.md", True),
    ],
)
def test_file_based_runs_overlapping_subtasks_one_after_the_other(one: str, other: str, overlap: bool) -> None:
    written = plan(
        subtask(1, parallel_group=1, files=[one]),
        subtask(2, parallel_group=1, files=[other]),
        parallelization_strategy="file_based",
    )
    assert group_ids(valid(written)) == ({1: [1], 2: [2]} if overlap else {1: [1, 2]})


def test_file_based_keeps_the_id_order_of_what_overlaps_and_leaves_the_rest_together() -> None:
    written = plan(
        subtask(1, parallel_group=5, files=["a"]),
        subtask(2, parallel_group=5, files=["a", "b"]),
        subtask(3, parallel_group=5, files=["b"]),
        subtask(4, parallel_group=5, files=["c"]),
        subtask(5, parallel_group=5),
        subtask(6, parallel_group=7, files=["a"]),
        parallelization_strategy="file_based",
    )
    assert group_ids(valid(written)) == {1: [1, 4, 5], 2: [2], 3: [3], 4: [6]}


def test_file_based_keeps_written_numbers_where_nothing_overlaps() -> None:
    written = plan(subtask(1, parallel_group=5), subtask(2, parallel_group=7), parallelization_strategy="file_based")
    assert group_ids(valid(written)) == {5: [1], 7: [2]}


def test_a_check_by_number_follows_its_written_group_and_runs_after_the_last_part() -> None:
    written = plan(
        subtask(1, parallel_group=2, files=["a"], depends_on=[9]),
        subtask(2, parallel_group=2, files=["a"]),
        subtask(3, parallel_group=3),
        subtask(9),
        parallelization_strategy="file_based",
        group_checks={2: "make two", 3: "make three"},
    )
    validated = valid(written)
    assert group_ids(validated) == {1: [9], 2: [1], 3: [2], 4: [3]}
    assert [group.check for group in validated.groups] == [None, None, "make two", "make three"]


def test_one_check_is_for_every_group() -> None:
    written = plan(subtask(1, parallel_group=1), subtask(2), group_checks="make")
    assert [group.check for group in valid(written).groups] == ["make", "make"]


def test_a_check_by_number_counts_the_levels_under_dependencies() -> None:
    written = plan(
        subtask(1), subtask(2, depends_on=[1]), parallelization_strategy="dependencies", group_checks={2: "make"}
    )
    assert [group.check for group in valid(written).groups] == [None, "make"]
