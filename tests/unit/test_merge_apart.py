"""Whose changes have nothing to do with each other, so that no merge has to be asked."""

from __future__ import annotations

import pytest

from orchestrator.merge.apart import FileChange, how_many_are_apart

HEAD = "head"


def change(path: str, status: str = "A", mode: str = "100644") -> FileChange:
    return FileChange(path.encode(), status, mode, "1" * 40)


@pytest.mark.parametrize(
    ("first", "second", "number"),
    [
        ("a", "b", 2),
        ("folder/a", "folder/b", 2),
        ("folder", "folder-b", 2),
        ("a", "a", 1),
        ("a", "a/b/c", 1),
        ("a/b/c", "a", 1),
        ("a/b/c", "a/b", 1),
    ],
)
def test_no_path_is_anothers_or_lies_under_it(first: str, second: str, number: int) -> None:
    changes = {"one": [change(first)], "two": [change("x"), change(second)]}
    assert how_many_are_apart(HEAD, ["one", "two"], changes, {"one": [HEAD], "two": [HEAD]}) == number


@pytest.mark.parametrize(
    ("status", "mode", "number"),
    [
        ("A", "100755", 3),
        ("M", "120000", 3),
        ("M", "100644", 3),
        ("D", "000000", 1),
        ("T", "120000", 1),
        ("A", "160000", 1),
        ("M", "160000", 1),
    ],
)
def test_nothing_goes_away_or_turns_into_something_else(status: str, mode: str, number: int) -> None:
    changes = {"one": [change("a")], "two": [change("b", status, mode)], "three": [change("c")]}
    parents = {name: [HEAD] for name in changes}
    assert how_many_are_apart(HEAD, list(changes), changes, parents) == number


@pytest.mark.parametrize(
    ("parents", "number"),
    [
        ({"one": [HEAD], "two": ["two^"], "two^": [HEAD]}, 2),
        ({"one": [HEAD], "two": [HEAD, "older"]}, 2),
        ({"one": [HEAD], "two": ["older"]}, 1),
        ({"one": [HEAD], "two": ["one"]}, 1),
        ({"one": ["both"], "two": ["both"], "both": [HEAD]}, 1),
        ({"one": ["older"], "two": [HEAD]}, 0),
    ],
)
def test_each_starts_at_the_head_and_shares_nothing_since(parents: dict[str, list[str]], number: int) -> None:
    changes = {"one": [change("a")], "two": [change("b")]}
    assert how_many_are_apart(HEAD, ["one", "two"], changes, parents) == number
