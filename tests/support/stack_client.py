"""A command that uses the embedded stack, for tests that end it: `stack_client.py STATE_DIR NEED SLOTS WORKER…`.

It prints one JSON line when it has what it needs, and then stays until its standard input ends. `WORKER…` is the
stand-in's command, see `stand_in_worker.py`.
"""

import json
import sys
from pathlib import Path

from orchestrator.errors import OrchestratorException
from orchestrator.local.client import Need, local_stack
from orchestrator.settings import load_settings


def main() -> None:
    state_dir, need, slots, *worker = sys.argv[1:]
    settings = load_settings(state_dir=Path(state_dir))
    try:
        with local_stack(settings, need=Need[need], slots=int(slots), fork_server=worker) as stack:
            say(json.dumps(stack.settings.model_dump(mode="json")))
            sys.stdin.read()
    except OrchestratorException as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
