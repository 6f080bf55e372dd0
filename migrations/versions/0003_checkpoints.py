"""Checkpoints: the objects of the artifact store, from which attempt an attempt goes on, the hash of the final weights.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE artifact (
            name TEXT NOT NULL,
            candidate_id BIGINT NOT NULL,
            token TEXT NOT NULL,
            state TEXT DEFAULT 'writing' NOT NULL,
            sha256 TEXT NOT NULL,
            bytes BIGINT DEFAULT '0' NOT NULL,
            epoch INTEGER NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
            CONSTRAINT artifact_pkey PRIMARY KEY (name),
            CONSTRAINT artifact_state_check CHECK (state in ('writing','current','obsolete')),
            CONSTRAINT artifact_candidate_id_fkey FOREIGN KEY(candidate_id) REFERENCES candidate (id),
            CONSTRAINT artifact_token_fkey FOREIGN KEY(token) REFERENCES attempt (token)
        );
        CREATE UNIQUE INDEX artifact_current ON artifact (candidate_id) WHERE state = 'current';
        alter table attempt add column resumed_token text, add column resumed_epoch integer;
        alter table result add column weights_hash text;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        alter table result drop column weights_hash;
        alter table attempt drop column resumed_token, drop column resumed_epoch;
        drop table artifact;
        """
    )
