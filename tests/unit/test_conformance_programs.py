"""The conformance suite of real programs can't be green for want of them, nor hide what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.agents import programs
from tests.integration.agents.programs import CLAUDE, CODEX
from tests.integration.agents.table import Table


def attempt(status: str, cost_usd: float | None = 0.5, *, estimated: bool = False) -> dict[str, Any]:
    return {"status": status, "usage": {"input_tokens": 1000}, "cost_usd": cost_usd, "cost_estimated": estimated}


def test_a_program_that_is_not_installed_is_skipped_in_words_and_in_ci_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "BIN", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="claude is not installed: `make test-agents` installs it"):
        CLAUDE.require()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="claude is not installed"):
        CLAUDE.require()
    (tmp_path / "claude").touch()
    CLAUDE.require()


def test_a_cell_has_outcome_requests_tokens_and_cost_and_says_where_another_outcome_was_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTS_TABLE", raising=False)
    table = Table()
    table.note_attempts("a row", CLAUDE, [attempt("completed")] * 2, 3, expected=["completed"])
    table.note_attempts("a row", CODEX, [attempt("failed", None, estimated=True)], 1, expected=["completed"])
    table.show()
    said = capsys.readouterr().out
    assert "| completed, 3 requests, 2,000 tokens, $1.0000 |" in said
    assert "| failed (expected: completed), 1 requests, 1,000 tokens |" in said
