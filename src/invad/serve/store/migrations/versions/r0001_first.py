"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("stations", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("last_used", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "expired_file",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("kind", "sha256", name=op.f("pk_expired_file")),
    )
    op.create_table(
        "model_version",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_model_version")),
    )
    op.create_table(
        "station",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["active"], ["model_version.hash"], name=op.f("fk_station_active")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_station")),
    )
    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("made_from", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_calibration_model_version")
        ),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_calibration_station")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration")),
        sa.UniqueConstraint(
            "station", "category", "revision", name=op.f("uq_calibration_station_category_revision")
        ),
    )
    op.create_table(
        "result",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("part_id", sa.Text(), nullable=True),
        sa.Column("lot", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("image_kept", sa.Boolean(), nullable=False),
        sa.Column("map_sha256", sa.String(length=64), nullable=True),
        sa.Column("map_kept", sa.Boolean(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("calibration", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("decision", sa.String(length=6), nullable=False),
        sa.Column("review_limit", sa.Double(), nullable=False),
        sa.Column("bad_limit", sa.Double(), nullable=False),
        sa.Column("map_review_limit", sa.Double(), nullable=False),
        sa.Column("map_bad_limit", sa.Double(), nullable=False),
        sa.Column("ms_queue", sa.Double(), nullable=False),
        sa.Column("ms_decode", sa.Double(), nullable=False),
        sa.Column("ms_infer", sa.Double(), nullable=False),
        sa.Column("ms_store", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_result_model_version")
        ),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_result_station")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_result")),
        sa.UniqueConstraint("station", "request_id", name=op.f("uq_result_station_request_id")),
    )
    op.create_index(op.f("ix_result_decision_id"), "result", ["decision", "id"], unique=False)
    op.create_index(op.f("ix_result_image_sha256"), "result", ["image_sha256"], unique=False)
    op.create_index(
        "ix_result_kept",
        "result",
        ["decision", "time"],
        unique=False,
        sqlite_where=sa.text("image_kept = 1"),
        postgresql_where=sa.text("image_kept"),
    )
    op.create_index(op.f("ix_result_map_sha256"), "result", ["map_sha256"], unique=False)
    op.create_index(op.f("ix_result_part_id"), "result", ["part_id"], unique=False)
    op.create_index(op.f("ix_result_station_id"), "result", ["station", "id"], unique=False)
    op.create_index(op.f("ix_result_time"), "result", ["time"], unique=False)
    op.create_table(
        "in_force",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("calibration", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["calibration"], ["calibration.id"], name=op.f("fk_in_force_calibration")),
        sa.ForeignKeyConstraint(
            ["model_version"], ["model_version.hash"], name=op.f("fk_in_force_model_version")
        ),
        sa.ForeignKeyConstraint(["station"], ["station.name"], name=op.f("fk_in_force_station")),
        sa.PrimaryKeyConstraint("station", "category", "model_version", name=op.f("pk_in_force")),
    )
    op.create_table(
        "outbox",
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("sink", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["result"], ["result.id"], name=op.f("fk_outbox_result"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("result", "sink", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_sink_next_try"), "outbox", ["sink", "next_try"], unique=False)
    op.create_table(
        "region",
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("x", sa.Integer(), nullable=False),
        sa.Column("y", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("area", sa.Integer(), nullable=False),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["result"], ["result.id"], name=op.f("fk_region_result"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("result", "number", name=op.f("pk_region")),
    )
