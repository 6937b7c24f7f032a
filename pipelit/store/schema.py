"""Every table of the product, as SQLAlchemy Core metadata. One schema for SQLite and PostgreSQL.

Money is integer micro-dollars, instants are `UtcDateTime`, free objects are `Json`. Integer ids are
never reused (`sqlite_autoincrement`). What the tables mean: docs/reference/, section by section.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.sql.schema import SchemaItem

from pipelit.store.types import Json, UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *items: SchemaItem) -> Table:
    return Table(name, metadata, *items, sqlite_autoincrement=True)


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, UtcDateTime, nullable=nullable)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _text(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Text, nullable=default is None, server_default=default)


# Server

meta = Table("meta", metadata, Column("key", String(100), primary_key=True), _text("value"))

servers = Table(
    "servers",
    metadata,
    Column("node_id", String(36), primary_key=True),
    Column("epoch", BigInteger, nullable=False, unique=True),
    _instant("started_at"),
    _instant("lease_until"),
    Column("released", Boolean, nullable=False, server_default=text("false")),
)

# People

users = _table(
    "users",
    _id(),
    Column("username", String(150), nullable=False, unique=True),
    Column("password_hash", String(200)),
    Column("role", String(10), nullable=False, server_default="normal"),
    Column("kind", String(10), nullable=False, server_default="human"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("first_name", String(150), nullable=False, server_default=""),
    Column("last_name", String(150), nullable=False, server_default=""),
    Column("external_id", String(255), unique=True),
    Column("created_by_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    _text("purpose"),
    _text("totp_secret", None),
    _text("totp_pending", None),
    Column("totp_last_step", BigInteger),
    Column("mfa_enabled", Boolean, nullable=False, server_default=text("false")),
    _instant("created_at"),
)

api_keys = _table(
    "api_keys",
    _id(),
    Column("user_id", _ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(8), nullable=False),
    Column("suffix", String(8), nullable=False),
    _text("encrypted_key", None),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _instant("created_at"),
    _instant("last_used_at", nullable=True),
    _instant("expires_at", nullable=True),
)

audit_log = _table(
    "audit_log",
    _id(),
    Column("kind", String(40), nullable=False),
    Column("outcome", String(10), nullable=False),
    _instant("created_at"),
    # Without foreign keys: an entry outlives whom it names.
    Column("user_id", _ID),
    _text("username"),
    Column("key_id", _ID),
    _text("peer"),
    _text("request_id"),
    Column("subject", Json, nullable=False),
    Index("ix_audit_log_outcome", "outcome", "id"),
    Index("ix_audit_log_kind", "kind", "id"),
    Index("ix_audit_log_username", "username", "id"),
)

workspaces = _table(
    "workspaces",
    _id(),
    Column("owner_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("name", String(100), nullable=False, unique=True),
    _text("path"),
    Column("allow_network", Boolean, nullable=False, server_default=text("false")),
    Column("env_vars", Json, nullable=False),
    _instant("created_at"),
)

credentials = _table(
    "credentials",
    _id(),
    Column("created_by_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("name", String(255), nullable=False),
    Column("credential_type", String(10), nullable=False),
    # The type's fields in clear, its secrets encrypted one by one.
    Column("detail", Json, nullable=False),
    _instant("created_at"),
    _instant("updated_at"),
)

# Workflows

workflows = _table(
    "workflows",
    _id(),
    Column("owner_id", _ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("slug", String(255), nullable=False),
    _text("description"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_public", Boolean, nullable=False, server_default=text("false")),
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    Column("tags", Json),
    Column("error_handler_workflow_id", _ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("max_execution_seconds", Integer),
    Column("input_schema", Json),
    Column("output_schema", Json),
    Column("forked_from_id", _ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    # Moves with every change of the workflow, its nodes or its edges: the key of compiled plans.
    _count("version"),
    Column("dedupe_key", String(300), unique=True),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("deleted_at", nullable=True),
    # A deleted workflow keeps its slug for its executions and frees it for others.
    Index(
        "uq_workflows_slug_alive",
        "slug",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

nodes = _table(
    "nodes",
    _id(),
    Column("workflow_id", _ID, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
    Column("node_id", String(255), nullable=False),
    Column("label", String(255)),
    Column("component_type", String(50), nullable=False),
    Column("is_entry_point", Boolean, nullable=False, server_default=text("false")),
    Column("interrupt_before", Boolean, nullable=False, server_default=text("false")),
    Column("interrupt_after", Boolean, nullable=False, server_default=text("false")),
    Column("position_x", BigInteger, nullable=False, server_default="0"),
    Column("position_y", BigInteger, nullable=False, server_default="0"),
    # The stored part of nodes.md "Config"; credential links are columns of their own.
    Column("config", Json, nullable=False),
    Column("llm_credential_id", _ID, ForeignKey("credentials.id", ondelete="SET NULL")),
    Column("credential_id", _ID, ForeignKey("credentials.id", ondelete="SET NULL")),
    Column("subworkflow_id", _ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("code_block_id", BigInteger),
    _instant("updated_at"),
    UniqueConstraint("workflow_id", "node_id"),
)

edges = _table(
    "edges",
    _id(),
    Column("workflow_id", _ID, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
    Column("source_node_id", String(255), nullable=False),
    Column("target_node_id", String(255), nullable=False, server_default=""),
    Column("edge_type", String(11), nullable=False, server_default="direct"),
    Column("edge_label", String(20), nullable=False, server_default=""),
    Column("condition_mapping", Json),
    Column("condition_value", String(100), nullable=False, server_default=""),
    Column("priority", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint(
        "workflow_id",
        "source_node_id",
        "target_node_id",
        "edge_type",
        "edge_label",
        "condition_value",
    ),
)

# Executions

executions = Table(
    "executions",
    metadata,
    Column("id", String(36), primary_key=True),
    # Creation order; also breaks ties of started_at.
    Column("created_seq", BigInteger, nullable=False, unique=True),
    Column("workflow_id", _ID, ForeignKey("workflows.id"), nullable=False),
    Column("trigger_node_id", String(255)),
    Column("user_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("thread_id", String(255), nullable=False),
    # Chat-API executions of one thread run one at a time.
    Column("serial", Boolean, nullable=False, server_default=text("false")),
    Column("status", String(11), nullable=False),
    Column("source", String(10), nullable=False),
    Column("trigger_payload", Json),
    # The normalised trigger object of engine.md §5.4.
    Column("trigger", Json, nullable=False),
    Column("user_context", Json),
    Column("snapshot", Json),
    Column("limit_seconds", Integer, nullable=False),
    # Active microseconds used before `resumed_at`; the execution limit counts these.
    _count("active_us"),
    _instant("resumed_at", nullable=True),
    Column("parent_execution_id", String(36), index=True),
    Column("parent_node_id", String(255)),
    Column("root_execution_id", String(36)),
    Column("depth", Integer, nullable=False, server_default="0"),
    Column("retry_of", String(36)),
    Column("retry_from", String(255)),
    Column("schedule_id", String(36), index=True),
    Column("dedupe_key", String(300), unique=True),
    Column("final_output", Json),
    _text("error_message"),
    Column("error_code", String(100)),
    _instant("created_at"),
    _instant("started_at", nullable=True),
    # Where lists have it: when it started; at the end of time while it has not.
    Column("listed_at", UtcDateTime, nullable=False, server_default="9223372036854775807"),
    _instant("completed_at", nullable=True),
    _instant("last_activity_at"),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("total_tokens"),
    _count("cost_micros"),
    _count("llm_calls"),
    _count("tool_invocations"),
    _count("last_seq"),
    Column("owner", String(36)),
    Column("epoch", BigInteger),
    _count("recovery_count"),
    Index("ix_executions_status", "status", "created_seq"),
    Index("ix_executions_listed", "listed_at", "created_seq"),
    Index("ix_executions_workflow_listed", "workflow_id", "listed_at", "created_seq"),
    Index("ix_executions_status_listed", "status", "listed_at", "created_seq"),
    Index("ix_executions_thread", "thread_id", "status"),
    Index("ix_executions_user", "user_id", "started_at"),
    Index("ix_executions_completed", "completed_at"),
    CheckConstraint(
        "status IN ('pending','running','interrupted','completed','failed','cancelled')",
        name="status",
    ),
)

journal = Table(
    "journal",
    metadata,
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    # 1, 2, 3 … in the order of commits: the fold's order.
    Column("position", Integer, primary_key=True),
    Column("node_id", String(255), nullable=False),
    Column("iteration", String(100), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("record", Json, nullable=False),
    # One result per activation, whatever happens (engine.md §10.1).
    Index(
        "uq_journal_result",
        "execution_id",
        "node_id",
        "iteration",
        unique=True,
        sqlite_where=text("kind = 'result'"),
        postgresql_where=text("kind = 'result'"),
    ),
)

execution_logs = _table(
    "execution_logs",
    _id(),
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("node_id", String(255), nullable=False),
    Column("status", String(10), nullable=False),
    Column("input", Json),
    Column("output", Json),
    _text("error"),
    Column("error_code", String(100)),
    Column("metadata", Json),
    _count("duration_ms"),
    _instant("timestamp"),
)

execution_events = Table(
    "execution_events",
    metadata,
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("seq", BigInteger, primary_key=True),
    Column("type", String(30), nullable=False),
    Column("timestamp", Float, nullable=False),
    Column("data", Json, nullable=False),
)

# Progress of an agent's run between model answers and tool results (engine.md §22.5).
run_checkpoints = Table(
    "run_checkpoints",
    metadata,
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("node_id", String(255), primary_key=True),
    Column("iteration", String(100), primary_key=True),
    Column("state", Json, nullable=False),
    _instant("updated_at"),
)

pending_tasks = Table(
    "pending_tasks",
    metadata,
    Column("task_id", String(8), primary_key=True),
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("node_id", String(255), nullable=False),
    Column("iteration", String(100), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("user_id", _ID),
    Column("chat_id", String(255)),
    Column("credential_id", String(255)),
    _text("prompt"),
    _instant("created_at"),
    _instant("expires_at"),
    _text("answer", None),
    _instant("answered_at", nullable=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", _ID, primary_key=True),
    Column("workflow_id", _ID, primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Json, nullable=False),
    Column("execution_id", String(36), nullable=False),
    _instant("created_at"),
)

# Done-markers of what happens after the end of an execution, at least once (engine.md §10.6).
dispatches = Table(
    "dispatches",
    metadata,
    Column(
        "execution_id",
        String(36),
        ForeignKey("executions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("kind", String(20), primary_key=True),
    Column("done", Boolean, nullable=False, server_default=text("false")),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Null once it is done.
    _instant("due_at", nullable=True),
    Index("ix_dispatches_due", "kind", "due_at"),
)

# Schedules

schedules = Table(
    "schedules",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255), nullable=False),
    _text("description"),
    Column("workflow_id", _ID, ForeignKey("workflows.id"), nullable=False, index=True),
    Column("trigger_node_id", String(255)),
    Column("user_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("interval_seconds", Integer),
    Column("cron", String(100)),
    Column("timezone", String(64)),
    Column("catch_up", String(4), nullable=False, server_default="one"),
    Column("total_repeats", BigInteger, nullable=False, server_default="0"),
    Column("max_retries", BigInteger, nullable=False, server_default="3"),
    Column("timeout_seconds", Integer, nullable=False, server_default="600"),
    Column("trigger_payload", Json),
    Column("status", String(6), nullable=False, server_default="active"),
    _count("current_repeat"),
    _count("current_retry"),
    _count("run_count"),
    _count("error_count"),
    _text("last_error"),
    _instant("last_run_at", nullable=True),
    _instant("next_run_at", nullable=True),
    _instant("created_at"),
    _instant("updated_at"),
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
    _instant("fired_at"),
    # What the run made of the job, recorded once; null until then.
    Column("outcome", String(9)),
    Index(
        "ix_schedule_fires_open",
        "schedule_id",
        sqlite_where=text("outcome IS NULL"),
        postgresql_where=text("outcome IS NULL"),
    ),
)

# Conversations and memory

# The versions of a namespace; `messages` holds what they list. The newest version is the state.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("checkpoint_id", String(36), primary_key=True),
    Column("thread_id", String(255), nullable=False),
    Column("checkpoint_ns", String(255), nullable=False),
    Column("parent_checkpoint_id", String(36)),
    Column("step", Integer, nullable=False),
    Column("source", String(10), nullable=False),
    Column("blob_size", BigInteger, nullable=False),
    # The version is the messages with first_position <= position <= last_position.
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    _instant("created_at"),
    Index("ix_checkpoints_thread", "thread_id", "checkpoint_ns", "step"),
)

thread_messages = Table(
    "thread_messages",
    metadata,
    Column("thread_id", String(255), primary_key=True),
    Column("checkpoint_ns", String(255), primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("execution_id", String(36)),
    Column("role", String(10), nullable=False),
    Column("message", Json, nullable=False),
    _instant("timestamp"),
    Index("ix_thread_messages_time", "thread_id", "checkpoint_ns", "timestamp"),
)

facts = Table(
    "facts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("scope", String(7), nullable=False),
    Column("agent_id", String(255)),
    Column("user_id", String(255)),
    Column("key", String(255), nullable=False),
    Column("value", Json),
    Column("fact_type", String(50), nullable=False),
    Column("confidence", Float, nullable=False, server_default="1.0"),
    Column("times_confirmed", BigInteger, nullable=False, server_default="1"),
    _count("times_contradicted"),
    _count("access_count"),
    _instant("last_accessed", nullable=True),
    _instant("created_at"),
    _instant("updated_at"),
    Index("ix_facts_key", "key", "scope"),
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("execution_id", String(36), unique=True),
    Column("agent_id", String(255), nullable=False, index=True),
    Column("user_id", String(255)),
    Column("trigger_type", String(20), nullable=False, server_default=""),
    Column("detail", Json),
    Column("success", Boolean, nullable=False, server_default=text("false")),
    Column("error_code", String(100)),
    _text("summary", None),
    _instant("started_at"),
    _instant("ended_at", nullable=True),
    Column("duration_ms", BigInteger),
    _instant("created_at"),
)

procedures = Table(
    "procedures",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("agent_id", String(255), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    _text("description"),
    Column("procedure_type", String(50), nullable=False),
    Column("trigger_conditions", Json),
    Column("content", Json),
    _count("times_used"),
    _count("times_succeeded"),
    _count("times_failed"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _instant("created_at"),
)

memory_users = Table(
    "memory_users",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("canonical_id", String(255), nullable=False, unique=True),
    Column("display_name", String(255)),
    Column("telegram_id", String(255), unique=True),
    Column("email", String(255), unique=True),
    Column("preferences", Json),
    _count("total_conversations"),
    _instant("first_seen_at"),
    _instant("last_seen_at"),
    _instant("created_at"),
)

# Files of deep agents with the backend `store`, per workflow and user (node-types.md §5.2).
agent_files = Table(
    "agent_files",
    metadata,
    Column("workflow_id", _ID, ForeignKey("workflows.id", ondelete="CASCADE"), primary_key=True),
    # The id of a user profile, or `anon`.
    Column("user_key", String(36), primary_key=True),
    Column("path", String(255), primary_key=True),
    _text("content"),
    Column("size", Integer, nullable=False),
    _instant("updated_at"),
)

# Epics and tasks

epics = Table(
    "epics",
    metadata,
    Column("id", String(15), primary_key=True),
    Column("title", String(255), nullable=False),
    _text("description"),
    Column("tags", Json, nullable=False),
    Column("created_by_node_id", String(255)),
    Column("workflow_id", _ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("user_id", _ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("status", String(10), nullable=False, server_default="planning"),
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("budget_tokens", BigInteger),
    Column("budget_micros", BigInteger),
    _count("spent_tokens"),
    _count("spent_micros"),
    _count("agent_overhead_tokens"),
    _count("agent_overhead_micros"),
    _count("total_tasks"),
    _count("completed_tasks"),
    _count("failed_tasks"),
    Column("dedupe_key", String(300), unique=True),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("completed_at", nullable=True),
    _text("result_summary", None),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(15), primary_key=True),
    Column(
        "epic_id",
        String(15),
        ForeignKey("epics.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("title", String(255), nullable=False),
    _text("description"),
    Column("tags", Json, nullable=False),
    Column("created_by_node_id", String(255)),
    Column("status", String(10), nullable=False, server_default="pending"),
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("workflow_id", _ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("workflow_slug", String(255)),
    Column("execution_id", String(36), index=True),
    Column("workflow_source", String(20), nullable=False, server_default="inline"),
    Column("depends_on", Json, nullable=False),
    Column("requirements", Json),
    Column("estimated_tokens", BigInteger),
    _count("actual_tokens"),
    _count("actual_micros"),
    _count("llm_calls"),
    _count("tool_invocations"),
    _count("duration_ms"),
    Column("dedupe_key", String(300), unique=True),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("started_at", nullable=True),
    _instant("completed_at", nullable=True),
    _text("result_summary", None),
    _text("error_message", None),
    _count("retry_count"),
    Column("max_retries", BigInteger, nullable=False, server_default="2"),
    Column("notes", Json, nullable=False),
)

# Model calls against an epic's budget that no execution's totals hold yet (engine.md §25.4).
reservations = Table(
    "reservations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("epic_id", String(15), ForeignKey("epics.id", ondelete="CASCADE"), nullable=False),
    Column("execution_id", String(36), nullable=False, index=True),
    Column("node_id", String(255), nullable=False),
    # The call has ended: tokens and money are what it used, not what it may use.
    Column("settled", Boolean, nullable=False, server_default=text("false")),
    Column("tokens", BigInteger, nullable=False),
    Column("micros", BigInteger, nullable=False),
    _instant("created_at"),
    Index("ix_reservations_epic", "epic_id"),
)
