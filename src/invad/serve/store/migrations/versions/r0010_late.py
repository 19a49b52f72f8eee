"""Results say whether they came after the deadline of their station."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("result", sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False))
