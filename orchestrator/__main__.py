"""`python -m orchestrator`: the same as the `orchestrator` program."""

from orchestrator.cli.program import main

main()
