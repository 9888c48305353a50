"""The programs under test: where they are, and how a plan and a worker's environment lead them to the scripted model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

BIN: Final = Path(__file__).parents[3] / ".agents" / "bin"
"""Filled by `install.sh`."""

KEY: Final = "sk-dummy-0123456789-of-the-tests"


@dataclass(frozen=True)
class Program:
    """`config` is the agent's in a plan."""

    name: str
    program: str
    config: Mapping[str, Any] = field(default_factory=dict)
    permissions: str = "edit"

    def agent(self, **more: Any) -> dict[str, Any]:
        return {"name": self.name, **self.config, **more}

    def require(self) -> None:
        """Skip in words where it is not installed; in CI that is an error."""
        if (BIN / self.program).exists():
            return
        words = f"{self.program} is not installed: `make test-agents` installs it"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)


CLAUDE: Final = Program("claude-code", "claude", {"allowed_tools": ["Bash"]})
CODEX: Final = Program("codex", "codex", {"model": "gpt-5-codex"})
MINI: Final = Program("mini-swe-agent", "mini", {"model": "openai/gpt-5.1"}, permissions="full")
GEMINI: Final = Program("gemini", "gemini", {"model": "gemini-2.5-pro"}, permissions="full")
PROGRAMS: Final = (CLAUDE, CODEX, MINI, GEMINI)


def worker_environment(url: str, home: Path) -> dict[str, str]:
    """A clean one: nothing of whoever runs the tests, dummy keys, and a provider on 127.0.0.1."""
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(BIN), str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": url,
        "GEMINI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_BASE": f"{url}/v1",
    }
