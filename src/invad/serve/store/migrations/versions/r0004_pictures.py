"""What the pictures themselves are like; and lots are found quickly."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("result", sa.Column("grey", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("result", sa.Column("clipped", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("result", sa.Column("sharpness", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.create_index(op.f("ix_result_lot"), "result", ["lot"], unique=False)
