"""Alembic's entry: it works on the connection, and in the transaction, that `orchestrator.state.migrate` opened."""

from alembic import context

from orchestrator.state.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
