"""The embedded stack: Valkey, PostgreSQL, a dispatcher and a worker on this machine, for as long as somebody looks."""
