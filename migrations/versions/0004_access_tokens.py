"""Access tokens, and events that say who and cannot be changed."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table token (
            id text not null,
            name text not null,
            sha256 text not null,
            scopes text[] not null,
            campaigns text[],
            created_by text not null,
            created_at timestamp with time zone default clock_timestamp() not null,
            expires_at timestamp with time zone,
            last_used_at timestamp with time zone,
            revoked_at timestamp with time zone,
            constraint token_pkey primary key (id),
            constraint token_name_key unique (name),
            constraint token_scopes_check
                check (scopes <@ array['read','worker','operator','admin'] and cardinality(scopes) > 0)
        )
        """
    )
    op.execute("alter table worker add column who text default '' not null")
    op.execute("alter table event alter column campaign_id drop not null, add column who text default 'before tokens' not null")
    op.execute("alter table event alter column who set default session_user")
    op.execute("drop index event_campaign")
    op.execute("create index event_campaign on event (campaign_id, xid, id)")
    op.execute(
        """
        create function event_is_append_only() returns trigger language plpgsql as $$
        begin
            raise exception 'events are append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
        end $$
        """
    )
    op.execute(
        "create trigger append_only before update or delete or truncate on event"
        " for each statement execute function event_is_append_only()"
    )


def downgrade() -> None:
    op.execute("drop trigger append_only on event")
    op.execute("drop function event_is_append_only()")
    op.execute("drop index event_campaign")
    op.execute("create index event_campaign on event (campaign_id, id)")
    op.execute("delete from event where campaign_id is null")
    op.execute("alter table event drop column who, alter column campaign_id set not null")
    op.execute("alter table worker drop column who")
    op.execute("drop table token")
