"""examples/bookstore: two agents write a model each at the same time, a third tests the merge of both."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import NEW_REPOSITORY, ROOT_OF_THE_PROJECT, run_program, start_program
from tests.support.services import open_temporary_folder

PLAN = ROOT_OF_THE_PROJECT / "examples" / "bookstore" / "plan.yaml"
USER = "src/bookstore/models/user.py"
PRODUCT = "src/bookstore/models/product.py"
REPORT = "TEST_REPORT.txt"


@dataclass(frozen=True)
class Example:
    """The example after its run: `job` is the summary that `run --json` ends with."""

    repo: Path
    state_dir: Path
    job: dict[str, Any]

    @property
    def branch(self) -> str:
        return f"orchestrator/{self.job['id']}"

    def git(self, *args: str) -> str:
        return run_program("git", *args, cwd=self.repo, state_dir=self.state_dir)

    def files_at(self, revision: str) -> set[str]:
        return set(self.git("ls-tree", "-r", "--name-only", revision).splitlines())

    def orchestrator(self, *args: str) -> str:
        return run_program("orchestrator", *args, cwd=self.repo, state_dir=self.state_dir)


@pytest.fixture(scope="module")
def example() -> Iterator[Example]:
    """One run of the plan, which all tests look at."""
    folder = open_temporary_folder()
    repo, state_dir = folder / "bookstore", folder / "state"
    try:
        run_program(NEW_REPOSITORY, repo, cwd=folder, state_dir=state_dir)
        out = run_program("orchestrator", "run", PLAN, "--repo", repo, "--json", cwd=folder, state_dir=state_dir)
        yield Example(repo, state_dir, json.loads(out.splitlines()[-1])["job"])
    finally:
        shutil.rmtree(folder)


@pytest.mark.stack
def test_the_job_completes_with_all_three_subtasks(example: Example) -> None:
    assert example.job["status"] == "completed"
    subtasks = [subtask for group in example.job["groups"] for subtask in group["subtasks"]]
    assert [(subtask["subtask_id"], subtask["status"]) for subtask in subtasks] == [
        (1, "completed"),
        (2, "completed"),
        (3, "completed"),
    ]


@pytest.mark.stack
def test_the_branch_holds_both_models_and_the_report_of_green_tests(example: Example) -> None:
    assert {USER, PRODUCT, REPORT} <= example.files_at(example.branch)
    assert "5 passed" in example.git("show", f"{example.branch}:{REPORT}")


@pytest.mark.stack
def test_each_attempt_alone_has_its_own_model_only(example: Example) -> None:
    attempts = f"refs/orchestrator/{example.job['id']}"
    assert {USER, PRODUCT} & example.files_at(f"{attempts}/1/1") == {USER}
    assert {USER, PRODUCT} & example.files_at(f"{attempts}/2/1") == {PRODUCT}


@pytest.mark.stack
def test_the_checkout_of_the_user_is_untouched(example: Example) -> None:
    assert example.git("status", "--porcelain", "--branch").splitlines() == ["## main"]
    assert {USER, PRODUCT, REPORT}.isdisjoint(example.files_at("main"))


@pytest.mark.stack
def test_status_and_logs_tell_afterwards_what_happened(example: Example) -> None:
    assert "Implement Product model" in example.orchestrator("status")
    logs = example.orchestrator("logs", example.job["id"][:6])
    assert "Writing src/bookstore/models/user.py" in logs
    assert "5 passed" in logs


def test_one_model_alone_does_not_pass_the_tests(tmp_path: Path) -> None:
    repo, state_dir = tmp_path / "bookstore", tmp_path / "state"
    run_program(NEW_REPOSITORY, repo, cwd=tmp_path, state_dir=state_dir)
    run_program("agents/user_model.sh", cwd=repo, state_dir=state_dir)
    tested = start_program("agents/run_tests.sh", cwd=repo, state_dir=state_dir)
    assert tested.returncode != 0
    assert "bookstore.models.product" in tested.stdout


def test_a_repository_of_an_earlier_call_is_replaced(tmp_path: Path) -> None:
    repo = tmp_path / "bookstore"
    run_program(NEW_REPOSITORY, repo, cwd=tmp_path, state_dir=tmp_path)
    (repo / "left_over").touch()
    run_program(NEW_REPOSITORY, repo, cwd=tmp_path, state_dir=tmp_path)
    assert not (repo / "left_over").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    subprocess.run(["git", "init", "--quiet", precious], check=True)
    refused = start_program(NEW_REPOSITORY, precious, cwd=tmp_path, state_dir=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == f"error: {precious} exists and is not a repository that this script made.\n"
    assert (precious / ".git").is_dir()
