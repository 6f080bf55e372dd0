"""How often the space or the fitness of a campaign was edited, so that no child is bred for what is gone.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table campaign add column revision integer default '0' not null")


def downgrade() -> None:
    op.execute("alter table campaign drop column revision")
