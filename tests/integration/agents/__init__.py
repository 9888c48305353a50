"""The real programs of agents against a scripted model, through the whole system: `make test-agents`."""
