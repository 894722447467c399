"""One lease for each replica, in place of one for each of its volunteers.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_replicas")),
    )
    op.execute(
        "INSERT INTO replicas (name, seen_at) SELECT replica, max(seen_at) FROM volunteers GROUP BY replica"
    )
    op.drop_column("volunteers", "seen_at")


def downgrade() -> None:
    # Of single volunteers nothing was noted: they count as gone until they are heard of.
    op.add_column("volunteers", sa.Column("seen_at", sa.Double(), nullable=False, server_default="0"))
    op.drop_table("replicas")
