"""`python -m orchestrator`: the same as the `orchestrator` program."""

from orchestrator.cli.main import main

main()
