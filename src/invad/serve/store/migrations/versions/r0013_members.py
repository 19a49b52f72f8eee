"""A part may have several pictures, which one file holds; what is said of each of them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("result", sa.Column("members", sa.Text(), nullable=True))
