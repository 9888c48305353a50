"""Named places where a test can kill, stop or delay this process; nothing happens there in a real fleet.

A test gives the fleet a folder in `ORCHESTRATOR_FAULT_POINTS_DIR`, and arms a point by writing a file of its name there:

    kill            kill -9 of the process that gets there
    stop            SIGSTOP; whoever armed it sends SIGCONT to the process that the log names
    delay SECONDS   that thread sleeps

The first process that gets to an armed point takes the file, so each is hit once; before it is hit a line
`POINT ACTION PID` goes into the folder's file `fired`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "ORCHESTRATOR_FAULT_POINTS_DIR"
LOG: Final = "fired"

FAULT_POINTS: Final = frozenset(
    {
        # submission
        "submission_before_commit",
        "submission_after_commit_before_publish",
        # any message, in whatever process
        "before_publish",
        "after_publish_before_mark",
        # a group becomes a chord
        "after_chord_size_before_commit",
        # an attempt
        "after_claim_before_workspace",
        "after_agent_before_push",
        "after_push_before_record",
        "after_record_before_return",
        "before_renewal",
        "after_checkpoint_push_before_record",
        # a merge
        "after_merge_claim_before_merge",
        "between_merged_branches",
        "after_branch_push_before_record",
        "after_merge_record_before_commit",
        "after_merge_commit_before_next_group",
        # the net
        "reconciler_after_look_before_move",
    }
)

_folder = os.environ.get(FOLDER_VARIABLE)


def fault_point(name: str) -> None:
    """Do what a test has armed here. Raises `ValueError` for a name that is not in `FAULT_POINTS`."""
    if name not in FAULT_POINTS:
        raise ValueError(f"There is no fault point {name}.")
    if _folder is not None:
        _reached(Path(_folder), name)


def _reached(folder: Path, name: str) -> None:
    taken = folder / f"{name}.{os.getpid()}.{time.monotonic_ns()}"
    try:
        (folder / name).rename(taken)  # of all that get here at once, in whatever process, one has it
    except OSError:
        return
    action, *seconds = taken.read_text().split()
    taken.unlink()
    with (folder / LOG).open("a") as log:
        log.write(f"{name} {action} {os.getpid()}\n")
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(float(seconds[0]))
        case _:
            raise ValueError(f"Nothing is known that is called {action}; kill, stop and delay are.")
