"""The data plane: one agent, from claim to recorded outcome."""
