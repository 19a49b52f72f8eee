"""Files of watched folders that are done with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "taken",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_taken_station")),
        sa.PrimaryKeyConstraint("station", "path", name=op.f("pk_taken")),
    )
