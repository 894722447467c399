"""How many tokens each line of a batch took, and all of them together; usage is found by its day.

What was answered before this stays null: it is not known. A replica of the version before, which may run on
for a while, leaves it null too.
Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = ("batches", "batch_answers")
_COLUMNS = ("prompt_tokens", "cached_tokens", "completion_tokens")


def upgrade() -> None:
    for table in _TABLES:
        for column in _COLUMNS:
            op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=True))
    op.create_index("ix_usage_day", "usage", ["day"])


def downgrade() -> None:
    op.drop_index("ix_usage_day", "usage")
    for table in _TABLES:
        for column in _COLUMNS:
            op.drop_column(table, column)
