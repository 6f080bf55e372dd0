"""What a failure was answered, the campaign of a quarantine, and an index by which an enqueued request is found again.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table attempt add column answer text")
    op.execute("alter table worker add column quarantine_campaign bigint")
    op.execute("create index event_request on event (campaign_id, (detail ->> 'request')) where kind = 'enqueued'")


def downgrade() -> None:
    op.execute("drop index event_request")
    op.execute("alter table worker drop column quarantine_campaign")
    op.execute("alter table attempt drop column answer")
