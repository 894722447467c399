"""What volunteers could hold elsewhere, and the moves that the relay has ordered.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("volunteers", sa.Column("room", sa.Integer(), nullable=True))
    op.add_column("volunteers", sa.Column("cached", sa.Text(), nullable=False, server_default=""))
    op.add_column("volunteers", sa.Column("settled_at", sa.Double(), nullable=False, server_default="0"))
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("peer", sa.String(16), nullable=False),
        sa.Column("from_start", sa.Integer(), nullable=False),
        sa.Column("from_end", sa.Integer(), nullable=False),
        sa.Column("to_start", sa.Integer(), nullable=False),
        sa.Column("to_end", sa.Integer(), nullable=False),
        sa.Column("gain", sa.Double(), nullable=False),
        sa.Column("members", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
    )


def downgrade() -> None:
    op.drop_table("moves")
    op.drop_column("volunteers", "settled_at")
    op.drop_column("volunteers", "cached")
    op.drop_column("volunteers", "room")
