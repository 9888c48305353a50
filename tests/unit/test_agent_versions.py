"""What is said of a program that does not say its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import processes_with
from workers.agents import versions
from workers.agents.versions import program_version


def fault_of(folder: Path, text: str) -> str:
    file = folder / "claude"
    file.write_text(text)
    file.chmod(0o755)
    found = program_version(str(file), (2, 1))
    assert (found.found, found.version, found.supported) == (True, None, False)
    return found.note.removeprefix(str(file)).strip()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("#!/bin/sh\n", "--version told no version"),
        ("#!/bin/sh\necho one >&2; echo two >&2; exit 127\n", "--version ended with exit code 127: two"),
        ("#!/bin/sh\nexit 3\n", "--version ended with exit code 3"),
        ("#!/nowhere/sh\n", "can't be started: No such file or directory"),
    ],
)
def test_a_program_without_a_version_says_why_in_words(text: str, fault: str, tmp_path: Path) -> None:
    assert fault_of(tmp_path, text) == fault


def test_a_program_that_hangs_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "VERSION_SECONDS", 0.5)
    assert fault_of(tmp_path, "#!/bin/sh\nsleep 987.6509\n") == "--version gave no answer within 0.5 s"
    assert processes_with("sleep 987.6509") == []
