"""People of the page: their names, their sessions, and how often somebody failed to be one of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "page_user",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("last_login", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_page_user")),
    )
    op.create_table(
        "page_session",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=True),
        sa.Column("api_key", sa.String(length=16), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"], ["page_user.name"], name=op.f("fk_page_session_user"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["api_key"], ["api_key.id"], name=op.f("fk_page_session_api_key")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_page_session")),
    )
    op.create_table(
        "login_failure",
        sa.Column("of", sa.String(length=80), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("of", name=op.f("pk_login_failure")),
    )
