"""Tokens are found by when they were revoked, without a look at all of them.

Revision 0004, after 0003.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_tokens_revoked_at", "tokens", ["revoked_at"])


def downgrade() -> None:
    op.drop_index("ix_tokens_revoked_at", "tokens")
