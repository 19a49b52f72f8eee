"""Files that were deleted stay named for a while, because another service may be writing them anew."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("expired_file", sa.Column("removed", sa.BigInteger(), nullable=True))
