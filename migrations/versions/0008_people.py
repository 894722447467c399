"""Tokens that other tokens have made, and their limits; what volunteers have done, by day; quarantines.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("parent", sa.String(12), nullable=True))
    op.add_column("tokens", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("tokens", sa.Column("replies_at_once", sa.Integer(), nullable=True))
    op.add_column("tokens", sa.Column("tokens_a_day", sa.BigInteger(), nullable=True))
    op.create_index("ix_tokens_parent", "tokens", ["parent"])
    op.create_index("ix_tokens_expires_at", "tokens", ["expires_at"])
    op.create_index("ix_tokens_created_at", "tokens", ["created_at"])
    op.create_table(
        "contributions",
        sa.Column("peer", sa.String(16), nullable=False),
        sa.Column("day", sa.Double(), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("blocks_steps", sa.BigInteger(), nullable=False),
        sa.Column("replies", sa.BigInteger(), nullable=False),
        sa.Column("hours", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("peer", "day", name=op.f("pk_contributions")),
    )
    op.create_index("ix_contributions_day", "contributions", ["day"])
    op.create_table(
        "quarantines",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("peer", sa.String(16), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("by", sa.String(12), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("end_reason", sa.String(500), nullable=True),
        sa.Column("ended_by", sa.String(12), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantines")),
    )
    op.create_index("ix_quarantines_peer", "quarantines", ["peer"])
    op.create_index("ix_quarantines_ended_at", "quarantines", ["ended_at"])


def downgrade() -> None:
    op.drop_table("quarantines")
    op.drop_table("contributions")
    for name in ("created_at", "expires_at", "parent"):
        op.drop_index(f"ix_tokens_{name}", "tokens")
    for name in ("tokens_a_day", "replies_at_once", "expires_at", "parent"):
        op.drop_column("tokens", name)
