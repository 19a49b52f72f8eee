"""Regions say how long and wide they are, where their middle lies, and how finely the model sees."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for name in ("mean", "centroid_x", "centroid_y", "length_px", "width_px", "cell_px"):
        op.add_column("region", sa.Column(name, sa.Double(), nullable=True))
