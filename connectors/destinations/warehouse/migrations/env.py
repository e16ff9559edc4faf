"""Alembic's entry: runs on the connection that `upgrade` opened, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="alembic_version")
with context.begin_transaction():
    context.run_migrations()
