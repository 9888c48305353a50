"""The command reference in Markdown, made from the commands themselves, for `docs/commands.md`."""

from __future__ import annotations

import inspect
from typing import Any

import typer


def command_reference() -> str:
    """A page with every command: its words, arguments, options and defaults, in the order of `orchestrator --help`."""
    from orchestrator.cli.main import app

    root: Any = typer.main.get_command(app)
    sections = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 the job failed, 2 bad input, 3 a service can't be reached, 130 cancelled.",
    ]
    for name, command in root.commands.items():
        sections += _section(f"orchestrator {name}", command)
        for child, subcommand in getattr(command, "commands", {}).items():
            sections += _section(f"orchestrator {name} {child}", subcommand)
    return "\n".join(sections) + "\n"


def _section(path: str, command: Any) -> list[str]:
    lines = ["", f"## {path}", "", inspect.cleandoc(command.help or "")]
    if getattr(command, "commands", None):
        return lines
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    words = [(_word(argument), argument) for argument in arguments]
    usage = " ".join([path, *(word for word, _ in words), *(["[OPTIONS]"] if options else [])])
    lines += ["", "```", usage, "```"]
    context = command.make_context(path, [], resilient_parsing=True)
    shown = [(word, argument.help) for word, argument in words]
    shown += [record for option in options if (record := option.get_help_record(context))]
    if shown:
        lines += ["", "| | |", "|---|---|", *(f"| `{left}` | {_cell(right)} |" for left, right in shown)]
    return lines


def _word(argument: Any) -> str:
    word = argument.metavar if argument.required else f"[{argument.metavar}]"
    return f"{word}..." if argument.nargs == -1 else word


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")
