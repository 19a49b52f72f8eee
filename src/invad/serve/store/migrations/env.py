"""Run by Alembic: applies the steps over the connection that `database` hands it."""

from alembic import context

from invad.serve.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters no column in place
)
with context.begin_transaction():
    context.run_migrations()
