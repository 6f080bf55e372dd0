"""Campaigns paused, drained or cancelled; limits of hours, time, patience; who may train what; quarantine; device time used.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = """
alter table campaign
    add column state text default 'running' not null
        constraint campaign_state_check check (state in ('running','paused','draining','cancelled')),
    add column gpu_hours double precision,
    add column deadline timestamp with time zone,
    add column patience integer,
    add column priority integer default '0' not null,
    add column share double precision default '1' not null constraint campaign_share_check check (share > 0),
    add column requires jsonb default '{}' not null;
alter table worker
    add column labels jsonb default '[]' not null,
    add column memory_gb jsonb default '{}' not null,
    add column draining boolean default false not null,
    add column failed_in_a_row bigint[] default '{}' not null,
    add column quarantines integer default '0' not null,
    add column quarantine text,
    add column quarantined_until timestamp with time zone;
create index worker_name on worker (name, host, registered_at desc);
alter table attempt add column devices integer default '1' not null;
alter table tally add column device_s double precision default '0' not null;
"""

# The time that an attempt held its devices is added to its campaign's numbers in whatever way the attempt ends.
TRIGGER = """
create function attempt_ended() returns trigger language plpgsql as $$
begin
  insert into tally (campaign_id, device_s)
  select campaign_id, new.devices * greatest(extract(epoch from new.ended_at - new.started_at), 0)
  from candidate where id = new.candidate_id;
  return null;
end $$;
create trigger attempt_ended after update of outcome on attempt
    for each row when (old.outcome is null and new.outcome is not null) execute function attempt_ended();
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(TRIGGER)
    op.execute(
        """
        insert into tally (campaign_id, device_s)
        select k.campaign_id, sum(extract(epoch from a.ended_at - a.started_at)) from attempt a
        join candidate k on k.id = a.candidate_id where a.ended_at is not null group by k.campaign_id
        """
    )


def downgrade() -> None:
    op.execute("drop trigger attempt_ended on attempt; drop function attempt_ended()")
    op.execute("alter table tally drop column device_s")
    op.execute("alter table attempt drop column devices")
    op.execute("drop index worker_name")
    op.execute(
        "alter table worker drop column labels, drop column memory_gb, drop column draining,"
        " drop column failed_in_a_row, drop column quarantines, drop column quarantine, drop column quarantined_until"
    )
    op.execute(
        """
        alter table campaign drop column state, drop column gpu_hours, drop column deadline, drop column patience,
            drop column priority, drop column share, drop column requires
        """
    )
