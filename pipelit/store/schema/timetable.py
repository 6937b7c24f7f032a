"""Scheduled jobs and the times they have fired."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    text,
)

from pipelit.store.schema.base import ID, count, instant, metadata, words
from pipelit.store.types import Json, UtcDateTime

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255), nullable=False),
    words("description"),
    Column("workflow_id", ID, ForeignKey("workflows.id"), nullable=False, index=True),
    Column("trigger_node_id", String(255)),
    Column("user_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("interval_seconds", Integer),
    Column("cron", String(100)),
    Column("timezone", String(64)),
    Column("catch_up", String(4), nullable=False, server_default="one"),
    Column("total_repeats", BigInteger, nullable=False, server_default="0"),
    Column("max_retries", BigInteger, nullable=False, server_default="3"),
    Column("timeout_seconds", Integer, nullable=False, server_default="600"),
    Column("trigger_payload", Json),
    Column("status", String(6), nullable=False, server_default="active"),
    count("current_repeat"),
    count("current_retry"),
    count("run_count"),
    count("error_count"),
    words("last_error"),
    instant("last_run_at", nullable=True),
    instant("next_run_at", nullable=True),
    instant("created_at"),
    instant("updated_at"),
    Column("owner", String(36)),
    Column("epoch", BigInteger),
    Column("dedupe_key", String(300), unique=True),
    CheckConstraint("(status = 'active') = (next_run_at IS NOT NULL)", name="active_has_next"),
    CheckConstraint("(interval_seconds IS NULL) <> (cron IS NULL)", name="one_rhythm"),
)

# One row per (schedule, nominal time): firing twice is impossible, not unlikely.
schedule_fires = Table(
    "schedule_fires",
    metadata,
    Column(
        "schedule_id",
        String(36),
        ForeignKey("schedules.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("nominal_time", UtcDateTime, primary_key=True),
    Column("execution_id", String(36)),
    instant("fired_at"),
    # What the run made of the job, recorded once; null until then.
    Column("outcome", String(9)),
    Index(
        "ix_schedule_fires_open",
        "schedule_id",
        sqlite_where=text("outcome IS NULL"),
        postgresql_where=text("outcome IS NULL"),
    ),
    Index("ix_schedule_fires_time", "nominal_time"),
)
