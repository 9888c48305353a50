"""Write the pages of docs/ that are made from the code; with `--check` say which of them are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orchestrator.cli.reference import command_reference
from orchestrator.plan.reference import plan_reference
from orchestrator.settings import Settings

FOLDER: Final = Path(__file__).parent
NOTICE: Final = "<!-- Written by docs/generate.py. Change the code it is made from, then run `make docs`. -->\n\n"

_SETTINGS_INTRODUCTION: Final = """\
# Settings

What every process of a fleet is told from outside. Each setting is a variable `ORCHESTRATOR_…` or, in lower case and
without the prefix, a key of `orchestrator.toml` in the working directory (`ORCHESTRATOR_CONFIG` names another file, which has to be there). A
command's option wins over the variable, the variable over the file, the file over the default. A value that can't be used
is a one-line error before anything starts.

```toml
# orchestrator.toml
broker_url = "redis://:secret@queue.example.org:6379/0"
database_url = "postgresql://orchestrator:secret@db.example.org:5432/orchestrator"
capabilities = ["gpu"]
```

Without `broker_url` and `database_url` a command starts what it needs on this machine, and stops it at its end.

| variable | default | meaning |
|---|---|---|
"""

_DEFAULTS_IN_WORDS: Final = {
    "state_dir": "`$XDG_STATE_HOME/orchestrator`, else `~/.local/state/orchestrator`; for root `/var/lib/orchestrator`",
}
"""Defaults that depend on the machine."""


def settings_reference() -> str:
    """Markdown: every setting with its variable, default and meaning."""
    rows = [
        f"| `ORCHESTRATOR_{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _SETTINGS_INTRODUCTION + "\n".join(rows) + "\n"


def _default(name: str) -> str:
    if name in _DEFAULTS_IN_WORDS:
        return _DEFAULTS_IN_WORDS[name]
    match Settings.model_fields[name].get_default(call_default_factory=True):
        case None | [] | {}:
            return "–"
        case float() as number:
            return f"`{number:g}`"
        case value:
            return f"`{value}`"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": command_reference,
    "plan.md": plan_reference,
    "settings.md": settings_reference,
}


def stale_pages() -> list[str]:
    """The names of the pages that do not say what the code says."""
    return [name for name, write in PAGES.items() if not _says(FOLDER / name, NOTICE + write())]


def _says(page: Path, text: str) -> bool:
    return page.is_file() and page.read_text() == text


def main() -> int:
    stale = stale_pages()
    if sys.argv[1:] == ["--check"]:
        for name in stale:
            print(f"docs/{name} is out of date: run `make docs`.")  # noqa: T201 - its only output
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(NOTICE + PAGES[name]())
        print(f"wrote docs/{name}")  # noqa: T201 - its only output
    return 0


if __name__ == "__main__":
    sys.exit(main())
