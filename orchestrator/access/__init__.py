"""How whoever uses a fleet reaches it: the command line, and callers from Python."""
