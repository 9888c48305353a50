"""The documentation says what is true: generated pages, links, and the commands and the plan of README.md."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command_line import NEW_REPOSITORY, ROOT_OF_THE_PROJECT, run_program
from tests.support.services import open_temporary_folder

README = ROOT_OF_THE_PROJECT / "README.md"
PAGES = sorted([*ROOT_OF_THE_PROJECT.glob("*.md"), *(ROOT_OF_THE_PROJECT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
TESTED = re.compile(r"^<!-- test(?:: (?P<file>\S+))? -->\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block that stands under `<!-- test -->`: commands, or with `<!-- test: NAME -->` a file."""

    file: str | None
    text: str


def blocks_under_test(page: Path) -> Iterator[Block]:
    for match in TESTED.finditer(page.read_text()):
        yield Block(match["file"], match["text"])


def test_the_generated_pages_are_up_to_date() -> None:
    # A program of its own, as `make docs-check` runs it.
    said = run_program(
        sys.executable, "docs/generate.py", "--check", cwd=ROOT_OF_THE_PROJECT, state_dir=ROOT_OF_THE_PROJECT
    )
    assert said == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT_OF_THE_PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name} links to {target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings get, in GitHub's manner."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_install_this_folder_and_all_that_their_plan_needs() -> None:
    """By its path: under the project's name a registry may have somebody else's package."""
    installs = [line for page in PAGES for line in re.findall(r"^pip install (.+)$", page.read_text(), re.MULTILINE)]
    assert installs
    assert all(line.startswith("'.[local") for line in installs)
    extras = re.search(r"--editable '\.(\[.*\])'", (ROOT_OF_THE_PROJECT / "Makefile").read_text())
    assert extras is not None
    assert f"pip install '.{extras[1]}'" in (ROOT_OF_THE_PROJECT / "README.md").read_text()


@pytest.mark.stack
def test_the_plan_and_the_commands_of_the_readme_work() -> None:
    blocks = list(blocks_under_test(README))
    files = {block.file: block.text for block in blocks if block.file is not None}
    scripts = [block.text for block in blocks if block.file is None]
    assert "plan.yaml" in files
    assert scripts, "README.md has commands to test"
    folder = open_temporary_folder()
    try:
        run_program(NEW_REPOSITORY, "bookstore", cwd=folder, state_dir=folder / "state")
        for name, text in files.items():
            (folder / name).write_text(text)
        said = [
            run_program("bash", "-euo", "pipefail", "-c", script, cwd=folder, state_dir=folder / "state")
            for script in scripts
        ]
        assert "job completed" in said[0]
        assert "5 passed" in said[0]
    finally:
        shutil.rmtree(folder)
