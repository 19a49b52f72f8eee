"""Drift: the state of each monitor, and the points of its chart."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "drift_point",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("log10_evidence", sa.Double(), nullable=False),
        sa.Column("effect", sa.Double(), nullable=False),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_drift_point_station")),
        sa.PrimaryKeyConstraint("station", "category", "result", name=op.f("pk_drift_point")),
    )
    op.create_table(
        "drift",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("calibration", sa.Integer(), nullable=False),
        sa.Column("started", sa.String(length=26), nullable=False),
        sa.Column("last", sa.String(length=26), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("every", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["calibration"], ["calibration.id"], name=op.f("fk_drift_calibration")),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_drift_station")),
        sa.PrimaryKeyConstraint("station", "category", name=op.f("pk_drift")),
    )
