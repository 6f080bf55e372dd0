"""The tables, as SQLAlchemy Core. ``migrations/`` builds them; a test holds the two equal.

Facts and judgements are kept apart: ``result`` holds what a training measured, ``candidate.fitness`` is the campaign's
judgement of the result that counts. ``lease`` is narrow and is the only table that heartbeats write, so that their updates stay
HOT.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


def _stamp(name: str) -> Column[datetime]:
    """A time by the database's clock, the only one that decides anything."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()"))


campaign = Table(
    "campaign",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("document", JSON, nullable=False),  # the normalised campaign file; JSON, not JSONB: the order of genes matters
    Column("seed", BigInteger, nullable=False),
    Column("same_seed", Boolean, nullable=False),
    Column("candidates", Integer, CheckConstraint("candidates >= 1", name="budget"), nullable=False),  # the budget
    Column("bred", Integer, nullable=False, server_default="0"),  # numbers given out: candidate k is 0 <= k < bred
    Column("revision", Integer, nullable=False, server_default="0"),  # of space and fitness; see server.breeding
    Column("state", Text, nullable=False, server_default="running"),  # what people decided; see server.steering
    Column("gpu_hours", Double),
    Column("deadline", DateTime(timezone=True)),
    Column("patience", Integer),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("share", Double, CheckConstraint("share > 0", name="share"), nullable=False, server_default="1"),
    Column("requires", JSONB, nullable=False, server_default="{}"),
    Column("retries_failed", Integer, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("beat_s", Double, nullable=False),
    Column("data_hash", Text),  # that of the first counted result; later ones must agree
    _stamp("created_at"),
    CheckConstraint("state in ('running','paused','draining','cancelled')", name="state"),
)

candidate = Table(
    "candidate",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("campaign_id", BigInteger, ForeignKey("campaign.id", ondelete="RESTRICT"), nullable=False),
    Column("number", Integer, nullable=False),  # imported rows count down from -1
    Column("hyp", JSON, nullable=False),
    Column("hyp_hash", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("parents", ARRAY(Integer), nullable=False, server_default="{}"),
    Column("bred_from", JSONB),  # the snapshot: with the campaign's seed it gives this hyp set again, on any replica
    Column("state", Text, nullable=False, server_default="queued"),
    Column("rung", Integer, nullable=False, server_default="0"),
    Column("token", Text),  # of the newest attempt
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("failure", Text),
    Column("fitness", Double),
    Column("imported_metrics", JSONB),  # of an imported row; those of a training stand in ``result``
    _stamp("created_at"),
    Column("finished_at", DateTime(timezone=True)),
    UniqueConstraint("campaign_id", "number"),
    CheckConstraint("state in ('queued','leased','running','done','failed','cancelled')", name="state"),
    CheckConstraint("origin in ('initial','bred','imported','enqueued','confirm')", name="origin"),
    CheckConstraint("(state = 'done') = (fitness is not null)", name="done_has_fitness"),
    CheckConstraint("fitness not in ('NaN','Infinity','-Infinity')", name="finite"),
    postgresql_with={"fillfactor": 80},
)
Index(
    "candidate_rank",
    candidate.c.campaign_id,
    candidate.c.fitness.desc(),
    candidate.c.number,
    postgresql_where=text("state = 'done'"),
)
Index(
    "candidate_open",
    candidate.c.campaign_id,
    candidate.c.number,
    postgresql_where=text("state in ('queued','leased','running')"),
)
Index(
    "candidate_best",
    candidate.c.campaign_id,
    candidate.c.fitness.desc(),
    candidate.c.number,
    postgresql_where=text("state = 'done' and number >= 0"),
)
Index(
    "candidate_ended",
    candidate.c.campaign_id,
    candidate.c.state,
    candidate.c.number,
    postgresql_where=text("state in ('failed','cancelled')"),
)
Index("candidate_confirm", candidate.c.campaign_id, postgresql_where=text("origin = 'confirm'"))
Index("candidate_queued", candidate.c.id, postgresql_where=text("state = 'queued'"))
Index("candidate_hash", candidate.c.campaign_id, candidate.c.hyp_hash)
Index(
    "candidate_finished",
    candidate.c.campaign_id,
    candidate.c.finished_at.desc(),
    postgresql_where=text("finished_at is not null"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),  # one per process start
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False, server_default=""),
    Column("devices", JSONB, nullable=False, server_default="[]"),
    Column("versions", JSONB, nullable=False, server_default="{}"),
    Column("who", Text, nullable=False, server_default=""),  # the caller it spoke as last
    Column("labels", JSONB, nullable=False, server_default="[]"),
    Column("memory_gb", JSONB, nullable=False, server_default="{}"),  # of each device, where it is known
    Column("draining", Boolean, nullable=False, server_default="false"),
    Column("failed_in_a_row", ARRAY(BigInteger), nullable=False, server_default="{}"),  # candidates; see server.quarantine
    Column("quarantines", Integer, nullable=False, server_default="0"),  # since the last result that counts
    Column("quarantine", Text),  # why it gets nothing
    Column("quarantine_campaign", BigInteger),  # the campaign that this names
    Column("quarantined_until", DateTime(timezone=True)),
    _stamp("registered_at"),
    _stamp("seen_at"),
)

Index("worker_name", worker.c.name, worker.c.host, worker.c.registered_at.desc())

attempt = Table(
    "attempt",
    metadata,
    Column("token", Text, primary_key=True),
    Column("candidate_id", BigInteger, ForeignKey("candidate.id"), nullable=False),
    Column("worker_id", Uuid, ForeignKey("worker.id"), nullable=False),
    Column("request_id", Uuid, nullable=False),
    Column("request_slot", Integer, nullable=False),
    Column("devices", Integer, nullable=False, server_default="1"),
    _stamp("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    Column("outcome", Text),
    Column("detail", JSONB),
    Column("answer", Text),  # what its failure was answered, for those who repeat it
    Column("resumed_token", Text),  # the attempt from whose checkpoint this one goes on, and the epochs done there
    Column("resumed_epoch", Integer),
    UniqueConstraint("request_id", "request_slot"),
    CheckConstraint("outcome in ('done','late','failed','released','lost','refused','cancelled')", name="outcome"),
)
Index("attempt_candidate", attempt.c.candidate_id)

lease = Table(
    "lease",
    metadata,
    Column("candidate_id", BigInteger, ForeignKey("candidate.id"), primary_key=True),
    Column("campaign_id", BigInteger, nullable=False),
    Column("worker_id", Uuid, nullable=False),
    Column("token", Text, nullable=False, unique=True),
    Column("lease_s", Double, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("beat_at", DateTime(timezone=True), nullable=False),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("progress", REAL, nullable=False, server_default="0"),
    postgresql_with={
        "fillfactor": 50,
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 500,
        "autovacuum_vacuum_cost_delay": 0,
    },
)

result = Table(
    "result",
    metadata,
    Column("token", Text, ForeignKey("attempt.token"), primary_key=True),
    Column("candidate_id", BigInteger, ForeignKey("candidate.id"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("counts", Boolean, nullable=False),
    Column("verdict", Text),  # why it does not count
    Column("metrics", JSONB, nullable=False),
    Column("fitness", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("body_sha256", Text, nullable=False),
    Column("weights_hash", Text),  # equal where two trainings ended at the same bits
    _stamp("stored_at"),
    CheckConstraint("fitness not in ('NaN','Infinity','-Infinity')", name="finite"),
)
Index("result_counts", result.c.candidate_id, result.c.rung, unique=True, postgresql_where=text("counts"))

# Objects in the artifact store. A row is there before its object is and goes after it, so that no object is ever forgotten.
artifact = Table(
    "artifact",
    metadata,
    Column("name", Text, primary_key=True),  # of the object, new for every upload
    Column("candidate_id", BigInteger, ForeignKey("candidate.id"), nullable=False),
    Column("token", Text, ForeignKey("attempt.token"), nullable=False),
    Column("state", Text, nullable=False, server_default="writing"),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False),
    _stamp("created_at"),
    CheckConstraint("state in ('writing','current','obsolete')", name="state"),
)
Index("artifact_current", artifact.c.candidate_id, unique=True, postgresql_where=text("state = 'current'"))

epoch = Table(
    "epoch",
    metadata,
    Column("candidate_id", BigInteger, ForeignKey("candidate.id"), primary_key=True),
    Column("token", Text, ForeignKey("attempt.token"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("metrics", JSONB, nullable=False),
    _stamp("recorded_at"),
)

# Append-only: a trigger refuses every UPDATE, DELETE and TRUNCATE.
event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("campaign_id", BigInteger, ForeignKey("campaign.id")),  # null: a change of the service itself, such as a new token
    Column("number", Integer),
    Column("kind", Text, nullable=False),
    Column("who", Text, nullable=False, server_default=text("SESSION_USER")),  # whoever writes past us is named too
    Column("detail", JSONB, nullable=False, server_default="{}"),
    _stamp("at"),
    # A reader shows only events below the oldest running transaction, so that who has seen N has seen all below N.
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
)
Index("event_campaign", event.c.campaign_id, event.c.xid, event.c.id)
Index(
    "event_request",  # hyp sets enqueued by a request that is repeated are found again
    event.c.campaign_id,
    text("(detail ->> 'request')"),
    postgresql_where=text("kind = 'enqueued'"),
)

# What each change adds to a campaign's numbers; triggers on ``candidate`` write it (migration 0002), see ``server.tally``.
tally = Table(
    "tally",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("campaign_id", BigInteger, nullable=False),
    *(
        Column(name, Integer, nullable=False, server_default="0")
        for name in ("queued", "leased", "running", "done", "failed", "cancelled", "imported", "lost")
    ),
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("device_s", Double, nullable=False, server_default="0"),  # by a trigger on ``attempt`` (migration 0006)
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 500,
        "autovacuum_vacuum_cost_delay": 0,
    },
)
Index("tally_campaign", tally.c.campaign_id)

# Where the best so far rose, by number; kept by the same triggers.
jump = Table(
    "jump",
    metadata,
    Column("campaign_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("fitness", Double, nullable=False),
)

# One row. ``beat_at`` is written by every coordinator every few seconds; a gap means that no worker could be heard, so that no
# lease may expire before ``grace_until``.
pulse = Table(
    "pulse",
    metadata,
    Column("one", Boolean, CheckConstraint("one", name="single"), primary_key=True, server_default=text("true")),
    _stamp("beat_at"),
    Column("grace_until", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
)

# Rows stay for ever: as long as there is one, nobody is let in without a token.
token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),  # the public part of the token, by which it is found
    Column("name", Text, nullable=False, unique=True),
    Column("sha256", Text, nullable=False),  # of the whole token; 256 random bits need no slow hash
    Column("scopes", ARRAY(Text), nullable=False),
    Column("campaigns", ARRAY(Text)),  # names, which may be created later; null: all
    Column("created_by", Text, nullable=False),
    _stamp("created_at"),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),  # to the minute
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("scopes <@ array['read','worker','operator','admin'] and cardinality(scopes) > 0", name="scopes"),
)

# A row for each time the database went back to an earlier state: a backup restored, a recovery to a point in time.
restoration = Table(
    "restoration",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _stamp("at"),
)
