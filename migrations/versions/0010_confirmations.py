"""An index by which the confirmations of a campaign are found.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index candidate_confirm on candidate (campaign_id) where origin = 'confirm'")


def downgrade() -> None:
    op.execute("drop index candidate_confirm")
