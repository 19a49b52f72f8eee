"""What people say of parts, who looks at which now, and good parts drawn for them to look at."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WAITING = sa.text("verdict IS NULL AND (decision <> 'good' OR audit)")


def upgrade() -> None:
    op.create_table(
        "claim",
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["result"], ["result.id"], name=op.f("fk_claim_result"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("result", name=op.f("pk_claim")),
    )
    op.create_table(
        "review",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(length=26), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(length=6), nullable=False),
        sa.Column("defect", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("mask", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["result"], ["result.id"], name=op.f("fk_review_result"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
    )
    op.create_index(op.f("ix_review_result"), "review", ["result"], unique=False)
    op.add_column("result", sa.Column("audit", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("result", sa.Column("verdict", sa.String(length=6), nullable=True))
    op.create_index(
        "ix_result_waiting",
        "result",
        ["station", "id"],
        unique=False,
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )
