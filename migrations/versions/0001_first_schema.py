"""The first schema: campaigns, candidates, attempts, leases, results, epochs, events, workers.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE campaign (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    document JSON NOT NULL,
    seed BIGINT NOT NULL,
    same_seed BOOLEAN NOT NULL,
    candidates INTEGER NOT NULL CONSTRAINT campaign_budget_check CHECK (candidates >= 1),
    bred INTEGER DEFAULT '0' NOT NULL,
    retries_failed INTEGER NOT NULL,
    lease_s DOUBLE PRECISION NOT NULL,
    beat_s DOUBLE PRECISION NOT NULL,
    data_hash TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT campaign_pkey PRIMARY KEY (id),
    CONSTRAINT campaign_name_key UNIQUE (name)
);
CREATE TABLE pulse (
    one BOOLEAN DEFAULT true NOT NULL CONSTRAINT pulse_single_check CHECK (one),
    beat_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    grace_until TIMESTAMP WITH TIME ZONE DEFAULT '-infinity' NOT NULL,
    CONSTRAINT pulse_pkey PRIMARY KEY (one)
);
CREATE TABLE worker (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    host TEXT DEFAULT '' NOT NULL,
    devices JSONB DEFAULT '[]' NOT NULL,
    versions JSONB DEFAULT '{}' NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT worker_pkey PRIMARY KEY (id)
);
CREATE TABLE candidate (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    campaign_id BIGINT NOT NULL,
    number INTEGER NOT NULL,
    hyp JSON NOT NULL,
    hyp_hash TEXT NOT NULL,
    origin TEXT NOT NULL,
    parents INTEGER[] DEFAULT '{}' NOT NULL,
    bred_from JSONB,
    state TEXT DEFAULT 'queued' NOT NULL,
    rung INTEGER DEFAULT '0' NOT NULL,
    token TEXT,
    attempts INTEGER DEFAULT '0' NOT NULL,
    failures INTEGER DEFAULT '0' NOT NULL,
    failure TEXT,
    fitness DOUBLE PRECISION,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT candidate_pkey PRIMARY KEY (id),
    CONSTRAINT candidate_campaign_id_number_key UNIQUE (campaign_id, number),
    CONSTRAINT candidate_state_check CHECK (state in ('queued','leased','running','done','failed','cancelled')),
    CONSTRAINT candidate_origin_check CHECK (origin in ('initial','bred','imported','enqueued','confirm')),
    CONSTRAINT candidate_done_has_fitness_check CHECK ((state = 'done') = (fitness is not null)),
    CONSTRAINT candidate_finite_check CHECK (fitness not in ('NaN','Infinity','-Infinity')),
    CONSTRAINT candidate_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaign (id) ON DELETE RESTRICT
)
 WITH (fillfactor = 80);
CREATE INDEX candidate_failed ON candidate (campaign_id, number) WHERE state = 'failed';
CREATE INDEX candidate_finished ON candidate (campaign_id, finished_at DESC) WHERE finished_at is not null;
CREATE INDEX candidate_hash ON candidate (campaign_id, hyp_hash);
CREATE INDEX candidate_open ON candidate (campaign_id, number) WHERE state in ('queued','leased','running');
CREATE INDEX candidate_rank ON candidate (campaign_id, fitness DESC, number) WHERE state = 'done';
CREATE TABLE event (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    campaign_id BIGINT NOT NULL,
    number INTEGER,
    kind TEXT NOT NULL,
    detail JSONB DEFAULT '{}' NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT event_pkey PRIMARY KEY (id),
    CONSTRAINT event_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES campaign (id)
);
CREATE INDEX event_campaign ON event (campaign_id, id);
CREATE TABLE attempt (
    token TEXT NOT NULL,
    candidate_id BIGINT NOT NULL,
    worker_id UUID NOT NULL,
    request_id UUID NOT NULL,
    request_slot INTEGER NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT,
    detail JSONB,
    CONSTRAINT attempt_pkey PRIMARY KEY (token),
    CONSTRAINT attempt_request_id_request_slot_key UNIQUE (request_id, request_slot),
    CONSTRAINT attempt_outcome_check CHECK (outcome in ('done','late','failed','released','lost','refused','cancelled')),
    CONSTRAINT attempt_candidate_id_fkey FOREIGN KEY(candidate_id) REFERENCES candidate (id),
    CONSTRAINT attempt_worker_id_fkey FOREIGN KEY(worker_id) REFERENCES worker (id)
);
CREATE INDEX attempt_candidate ON attempt (candidate_id);
CREATE TABLE lease (
    candidate_id BIGINT NOT NULL,
    campaign_id BIGINT NOT NULL,
    worker_id UUID NOT NULL,
    token TEXT NOT NULL,
    lease_s DOUBLE PRECISION NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    beat_at TIMESTAMP WITH TIME ZONE NOT NULL,
    epoch INTEGER DEFAULT '0' NOT NULL,
    progress REAL DEFAULT '0' NOT NULL,
    CONSTRAINT lease_pkey PRIMARY KEY (candidate_id),
    CONSTRAINT lease_candidate_id_fkey FOREIGN KEY(candidate_id) REFERENCES candidate (id),
    CONSTRAINT lease_token_key UNIQUE (token)
)
 WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
       autovacuum_vacuum_cost_delay = 0);
CREATE TABLE epoch (
    candidate_id BIGINT NOT NULL,
    token TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    metrics JSONB NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT epoch_pkey PRIMARY KEY (candidate_id, token, epoch),
    CONSTRAINT epoch_candidate_id_fkey FOREIGN KEY(candidate_id) REFERENCES candidate (id),
    CONSTRAINT epoch_token_fkey FOREIGN KEY(token) REFERENCES attempt (token)
);
CREATE TABLE result (
    token TEXT NOT NULL,
    candidate_id BIGINT NOT NULL,
    rung INTEGER NOT NULL,
    counts BOOLEAN NOT NULL,
    verdict TEXT,
    metrics JSONB NOT NULL,
    fitness DOUBLE PRECISION NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    epochs INTEGER NOT NULL,
    body_sha256 TEXT NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT result_pkey PRIMARY KEY (token),
    CONSTRAINT result_finite_check CHECK (fitness not in ('NaN','Infinity','-Infinity')),
    CONSTRAINT result_token_fkey FOREIGN KEY(token) REFERENCES attempt (token),
    CONSTRAINT result_candidate_id_fkey FOREIGN KEY(candidate_id) REFERENCES candidate (id)
);
CREATE UNIQUE INDEX result_counts ON result (candidate_id, rung) WHERE counts;
insert into pulse default values;
"""

# For people who look for the generation table by that name.
VIEW = """
create view generation as
select c.name as campaign, k.number, k.state, k.origin, k.parents, k.hyp, k.fitness, r.metrics, r.seconds,
       k.created_at, k.finished_at
from candidate k
join campaign c on c.id = k.campaign_id
left join result r on r.candidate_id = k.id and r.counts
order by k.campaign_id, k.number;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("drop view generation")
    op.execute("drop table pulse, event, epoch, result, lease, attempt, worker, candidate, campaign")
