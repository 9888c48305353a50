"""The Python of docs/python.md runs as a reader would run it."""

from __future__ import annotations

import re
import shutil
import sys

import pytest

from tests.support.command_line import NEW_REPOSITORY, ROOT_OF_THE_PROJECT, run_program
from tests.support.services import open_temporary_folder

TESTED = re.compile(r"^<!-- test -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.stack
def test_the_page_shows_what_works() -> None:
    scripts = TESTED.findall((ROOT_OF_THE_PROJECT / "docs" / "python.md").read_text())
    folder = open_temporary_folder()
    try:
        run_program(NEW_REPOSITORY, "bookstore", cwd=folder, state_dir=folder / "state")
        client, coordinator = (
            run_program(sys.executable, "-c", script, cwd=folder, state_dir=folder / "state") for script in scripts
        )
    finally:
        shutil.rmtree(folder)
    assert client.startswith("job.submitted")
    assert "\ncompleted orchestrator/" in client
    assert "1 completed done ('made.txt',)" in client
    assert [line.split()[:3] for line in coordinator.splitlines()[:3]] == [
        [str(number), "completed", f"('{number}.txt',)"] for number in (1, 2, 3)
    ]
    assert "2 True" in coordinator
