"""Flower for this fleet: `python -P -m workers.flower`, with Flower's own options.

`celery -A workers.app flower` looks for the package where the user stands first: a folder `workers` there would be taken
for ours.
"""

from __future__ import annotations

import sys

from orchestrator.closed_process import close_to_others
from orchestrator.errors import OrchestratorException


def main() -> None:
    close_to_others()
    try:
        from workers.app import app  # noqa: PLC0415 - this reads the settings
    except OrchestratorException as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    app.start(["flower", *sys.argv[1:]])


if __name__ == "__main__":
    main()
