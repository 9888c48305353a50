"""One module an agent."""
