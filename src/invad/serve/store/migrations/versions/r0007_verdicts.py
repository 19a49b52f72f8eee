"""Parts by what people said of them are found quickly."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

GIVEN = sa.text("verdict IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_result_verdict",
        "result",
        ["verdict", "id"],
        unique=False,
        sqlite_where=GIVEN,
        postgresql_where=GIVEN,
    )
