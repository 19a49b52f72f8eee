"""Sinks are named by their station, too, and take results in the order of storing."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.drop_index("ix_outbox_sink_next_try", table_name="outbox")
    with op.batch_alter_table("outbox") as batch:
        batch.alter_column("sink", existing_type=sa.String(length=64), type_=sa.String(length=160))
    op.create_index("ix_outbox_sink_result", "outbox", ["sink", "result"], unique=False)
