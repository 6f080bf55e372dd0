"""What imported rows measured, so that other weights can judge them as well.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table candidate add column imported_metrics jsonb")
    # Rows that came with a campaign's document are there in its order: -1, -2, ...
    op.execute(
        """
        update candidate k set imported_metrics = r.item -> 'metrics'
        from campaign c, json_array_elements(c.document -> 'imported') with ordinality as r (item, place)
        where k.campaign_id = c.id and k.origin = 'imported' and k.number = -r.place
        """
    )


def downgrade() -> None:
    op.execute("alter table candidate drop column imported_metrics")
