"""Counts without counting: deltas of each campaign's numbers, kept by triggers; where the best so far rose; indexes.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE tally (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    campaign_id BIGINT NOT NULL,
    queued INTEGER DEFAULT '0' NOT NULL,
    leased INTEGER DEFAULT '0' NOT NULL,
    running INTEGER DEFAULT '0' NOT NULL,
    done INTEGER DEFAULT '0' NOT NULL,
    failed INTEGER DEFAULT '0' NOT NULL,
    cancelled INTEGER DEFAULT '0' NOT NULL,
    imported INTEGER DEFAULT '0' NOT NULL,
    lost INTEGER DEFAULT '0' NOT NULL,
    seconds DOUBLE PRECISION DEFAULT '0' NOT NULL,
    CONSTRAINT tally_pkey PRIMARY KEY (id)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX tally_campaign ON tally (campaign_id);
CREATE TABLE jump (
    campaign_id BIGINT NOT NULL,
    number INTEGER NOT NULL,
    fitness DOUBLE PRECISION NOT NULL,
    CONSTRAINT jump_pkey PRIMARY KEY (campaign_id, number)
);
CREATE INDEX candidate_best ON candidate (campaign_id, fitness DESC, number) WHERE state = 'done' AND number >= 0;
DROP INDEX candidate_failed;
CREATE INDEX candidate_ended ON candidate (campaign_id, state, number) WHERE state in ('failed','cancelled');
CREATE INDEX candidate_queued ON candidate (id) WHERE state = 'queued';
"""

# Imported and confirm rows stand outside the budget, and so outside its numbers. An insert of many rows adds one delta.
FUNCTIONS = """
CREATE FUNCTION tally_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE sign int := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
  INSERT INTO tally (campaign_id, queued, leased, running, done, failed, cancelled, imported)
  SELECT campaign_id,
         sign * count(*) FILTER (WHERE own AND state = 'queued'), sign * count(*) FILTER (WHERE own AND state = 'leased'),
         sign * count(*) FILTER (WHERE own AND state = 'running'), sign * count(*) FILTER (WHERE own AND state = 'done'),
         sign * count(*) FILTER (WHERE own AND state = 'failed'), sign * count(*) FILTER (WHERE own AND state = 'cancelled'),
         sign * count(*) FILTER (WHERE origin = 'imported')
  FROM (SELECT campaign_id, state, origin, origin NOT IN ('imported', 'confirm') AS own FROM changed) AS c
  GROUP BY campaign_id;
  RETURN NULL;
END $$;
CREATE FUNCTION tally_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO tally (campaign_id, queued, leased, running, done, failed, cancelled) VALUES (
    NEW.campaign_id,
    (NEW.state = 'queued')::int - (OLD.state = 'queued')::int, (NEW.state = 'leased')::int - (OLD.state = 'leased')::int,
    (NEW.state = 'running')::int - (OLD.state = 'running')::int, (NEW.state = 'done')::int - (OLD.state = 'done')::int,
    (NEW.state = 'failed')::int - (OLD.state = 'failed')::int, (NEW.state = 'cancelled')::int - (OLD.state = 'cancelled')::int);
  -- Rows that were beaten before they began: two results at once may leave one, which readers pass over.
  IF NEW.state = 'done' AND NEW.number >= 0 AND NOT EXISTS (
       SELECT 1 FROM jump WHERE campaign_id = NEW.campaign_id AND number < NEW.number AND fitness >= NEW.fitness) THEN
    DELETE FROM jump WHERE campaign_id = NEW.campaign_id AND number >= NEW.number AND fitness <= NEW.fitness;
    INSERT INTO jump VALUES (NEW.campaign_id, NEW.number, NEW.fitness)
      ON CONFLICT (campaign_id, number) DO UPDATE SET fitness = EXCLUDED.fitness;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER tally_inserted AFTER INSERT ON candidate REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION tally_rows();
CREATE TRIGGER tally_deleted AFTER DELETE ON candidate REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION tally_rows();
CREATE TRIGGER tally_changed AFTER UPDATE OF state ON candidate FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.origin NOT IN ('imported', 'confirm')) EXECUTE FUNCTION tally_state();
"""

# What is there already, counted once.
COUNTED = """
INSERT INTO tally (campaign_id, queued, leased, running, done, failed, cancelled, imported)
SELECT campaign_id, count(*) FILTER (WHERE own AND state = 'queued'), count(*) FILTER (WHERE own AND state = 'leased'),
       count(*) FILTER (WHERE own AND state = 'running'), count(*) FILTER (WHERE own AND state = 'done'),
       count(*) FILTER (WHERE own AND state = 'failed'), count(*) FILTER (WHERE own AND state = 'cancelled'),
       count(*) FILTER (WHERE origin = 'imported')
FROM (SELECT campaign_id, state, origin, origin NOT IN ('imported', 'confirm') AS own FROM candidate) AS c GROUP BY campaign_id;
INSERT INTO tally (campaign_id, lost) SELECT campaign_id, count(*) FROM event WHERE kind = 'lost' GROUP BY campaign_id;
INSERT INTO tally (campaign_id, seconds)
SELECT k.campaign_id, sum(r.seconds) FROM result r JOIN candidate k ON k.id = r.candidate_id
WHERE r.counts GROUP BY k.campaign_id;
INSERT INTO jump
SELECT campaign_id, number, fitness FROM (
  SELECT campaign_id, number, fitness, max(fitness) OVER (
    PARTITION BY campaign_id ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM candidate WHERE state = 'done' AND number >= 0 AND origin NOT IN ('imported', 'confirm')) AS c
WHERE before IS NULL OR fitness > before;
"""


def upgrade() -> None:
    op.execute("LOCK TABLE candidate IN SHARE ROW EXCLUSIVE MODE")  # readers go on; nobody changes what is being counted
    op.execute(TABLES)
    op.execute(FUNCTIONS)
    op.execute(COUNTED)


def downgrade() -> None:
    op.execute("DROP TRIGGER tally_changed ON candidate; DROP TRIGGER tally_deleted ON candidate")
    op.execute("DROP TRIGGER tally_inserted ON candidate; DROP FUNCTION tally_state(); DROP FUNCTION tally_rows()")
    op.execute("DROP INDEX candidate_queued; DROP INDEX candidate_ended; DROP INDEX candidate_best; DROP TABLE jump, tally")
    op.execute("CREATE INDEX candidate_failed ON candidate (campaign_id, number) WHERE state = 'failed'")
