"""Versions of models: which was active when, which shadows where, and what it says."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("model_version", sa.Column("given", sa.BigInteger(), nullable=True))
    op.add_column("model_version", sa.Column("retired", sa.BigInteger(), nullable=True))
    op.create_table(
        "shadowing",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_shadowing_station")),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_shadowing_model_version")
        ),
        sa.PrimaryKeyConstraint("station", name=op.f("pk_shadowing")),
    )
    op.create_table(
        "activation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_activation_station")),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_activation_model_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activation")),
    )
    op.create_index(op.f("ix_activation_station_id"), "activation", ["station", "id"], unique=False)
    op.execute(
        "INSERT INTO activation (station, model_version, time, who) "
        "SELECT name, active, created, 'invad' FROM station"
    )
    op.create_table(
        "shadow",
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("calibration", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("decision", sa.String(length=6), nullable=False),
        sa.Column("ms_infer", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["result"], ["result.id"], name=op.f("fk_shadow_result"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_shadow_model_version")
        ),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_shadow_station")),
        sa.PrimaryKeyConstraint("result", "model_version", name=op.f("pk_shadow")),
    )
    op.create_index(
        op.f("ix_shadow_station_model_version_result"),
        "shadow",
        ["station", "model_version", "result"],
        unique=False,
    )
