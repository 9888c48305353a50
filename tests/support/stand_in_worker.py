"""A stand-in for dispatcher and worker, and for what they are forked from: `stand_in_worker.py JOURNAL BEHAVIOUR`.

It writes into the folder JOURNAL one file a process, named by its id, with the lines `NAME N`, `services answer` when
it was told so, and `keeper gone`. BEHAVIOUR: `good` ends on TERM and when the keeper is gone; `slow` takes a second to
end; `stubborn` watches no keeper; `broken` fails at once.
"""

import os
import signal
import sys
import time
from pathlib import Path

from orchestrator.local.fork_server import serve
from orchestrator.local.lifeline import watch_keeper


def main() -> None:
    journal, behaviour = sys.argv[1:]
    name, *rest = serve()
    if behaviour == "broken":
        sys.exit("No module named 'nothing'.")
    file = Path(journal) / str(os.getpid())

    def write(line: str) -> None:
        with file.open("a") as out:
            out.write(line + "\n")

    def on_term(_number: int, _frame: object) -> None:
        if behaviour == "slow":
            time.sleep(1)
        os._exit(0)

    def on_gone() -> None:
        write("keeper gone")
        os._exit(0)

    signal.signal(signal.SIGTERM, on_term)
    write(f"{name} {rest[1] if rest else ''}".strip())
    if behaviour != "stubborn":
        watch_keeper(on_gone).wait()
        write("services answer")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
