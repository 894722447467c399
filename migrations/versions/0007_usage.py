"""How many tokens each access token's replies took, by day and model.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("token_id", sa.String(12), nullable=False),
        sa.Column("day", sa.Double(), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("replies", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "day", "model", name=op.f("pk_usage")),
    )


def downgrade() -> None:
    op.drop_table("usage")
