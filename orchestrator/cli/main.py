"""The program `orchestrator`: its commands, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 the job failed, 2 bad input, 3 a service can't be reached, 130 cancelled.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.cli.commands.agents import agents
from orchestrator.cli.commands.cancel import cancel
from orchestrator.cli.commands.db import db
from orchestrator.cli.commands.dispatcher import dispatcher
from orchestrator.cli.commands.doctor import doctor
from orchestrator.cli.commands.export import export
from orchestrator.cli.commands.flower import flower
from orchestrator.cli.commands.list_jobs import list_jobs
from orchestrator.cli.commands.logs import logs
from orchestrator.cli.commands.pause import pause
from orchestrator.cli.commands.plan import plan
from orchestrator.cli.commands.prune import prune
from orchestrator.cli.commands.report import report
from orchestrator.cli.commands.resume import resume
from orchestrator.cli.commands.retry import retry
from orchestrator.cli.commands.run import run
from orchestrator.cli.commands.status import status
from orchestrator.cli.commands.submit import submit
from orchestrator.cli.commands.up import up
from orchestrator.cli.commands.validate import validate
from orchestrator.cli.commands.watch import watch
from orchestrator.cli.commands.worker import worker
from orchestrator.cli.commands.workers import workers
from orchestrator.errors import OrchestratorException, PlanError, ProposalError

BUG = 1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""A disk that is full, or what the user may use of it: no fault of ours."""
DEBUG_VARIABLE = "ORCHESTRATOR_DEBUG"

app = typer.Typer(
    name="orchestrator",
    help="A distributed task queue for coding agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Run": {"run": run, "up": up, "submit": submit},
    "Look": {"list": list_jobs, "status": status, "watch": watch, "logs": logs, "report": report, "export": export},
    "Steer": {"cancel": cancel, "retry": retry, "pause": pause, "resume": resume},
    "Before": {"plan": plan, "validate": validate},
    "Fleet": {
        "worker": worker,
        "dispatcher": dispatcher,
        "flower": flower,
        "workers": workers,
        "agents": agents,
        "doctor": doctor,
        "prune": prune,
    },
}
for panel, named in PANELS.items():
    for name, command in named.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(db, name="db", rich_help_panel="Fleet", help="Set up and look at the database's tables.")


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"orchestrator {importlib.metadata.version('orchestrator')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character gets a question mark, never a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not os.environ.get(DEBUG_VARIABLE):
        # A command says itself what its user should know; without a handler Python would print warnings beside it.
        logging.getLogger("orchestrator").addHandler(logging.NullHandler())
    sys.exit(_guarded())


def _guarded() -> int:
    try:
        app(prog_name="orchestrator")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else BUG
    except OrchestratorException as error:
        code = _tell(error)
    except Exception as error:
        code = _tell_bug(error)
    return _flushed(code)


def _tell(error: OrchestratorException) -> int:
    """Errors go to stderr: in words, or with --json as one object, so that stdout holds data only."""
    if "--json" in sys.argv:
        document: dict[str, Any] = {"message": error.message, "recovery": error.recovery, "context": error.context}
        print(json.dumps({"format": 1, "error": document}, default=str, ensure_ascii=False), file=sys.stderr)
    elif isinstance(error, PlanError):
        for line in fault_lines(error):
            print(line, file=sys.stderr)
    else:
        for line in fault_lines(error) if isinstance(error, ProposalError) else ():
            print(line, file=sys.stderr)
        print(f"error: {error.message}", file=sys.stderr)
    if error.recovery and "--json" not in sys.argv:
        print(f"  {error.recovery}", file=sys.stderr)
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    return error.exit_code


def fault_lines(error: PlanError | ProposalError) -> list[str]:
    """Every fault on a line of its own: `file:line: field: message (hint)`, as editors understand it."""
    lines = []
    for fault in error.faults:
        where = f"{error.source}:{fault.line}" if fault.line is not None else error.source
        field = f"{fault.field}: " if fault.field else ""
        hint = f" ({fault.hint})" if fault.hint else ""
        lines.append(f"{where}: {field}{fault.message}{hint}")
    return lines


def _tell_bug(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        print(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        print("  Free some, or write what is printed somewhere else.", file=sys.stderr)
        return BUG
    words = f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"error: this is a fault of orchestrator itself: {words}", file=sys.stderr)
    print(f"  Set {DEBUG_VARIABLE}=1 to see where it happened, and report it.", file=sys.stderr)
    return BUG


def _flushed(code: int) -> int:
    """A reader that has gone away (`| head`) is no error, and nothing is said about it at the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return code if isinstance(error, BrokenPipeError) else _tell_bug(error)
    return code
