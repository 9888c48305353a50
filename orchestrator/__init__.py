"""A distributed task queue for coding agents: the control plane."""
