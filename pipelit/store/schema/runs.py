"""Executions, and everything that is written while they run and when they end."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    text,
)

from pipelit.store.schema.base import ID, count, id_column, instant, metadata, table, words
from pipelit.store.types import Json, UtcDateTime

executions = Table(
    "executions",
    metadata,
    Column("id", String(36), primary_key=True),
    # Creation order; also breaks ties of started_at.
    Column("created_seq", BigInteger, Identity(always=False), nullable=False, unique=True),
    Column("workflow_id", ID, ForeignKey("workflows.id"), nullable=False),
    Column("trigger_node_id", String(255)),
    Column("user_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
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
    count("active_us"),
    instant("resumed_at", nullable=True),
    Column("parent_execution_id", String(36), index=True),
    Column("parent_node_id", String(255)),
    Column("root_execution_id", String(36)),
    Column("depth", Integer, nullable=False, server_default="0"),
    Column("retry_of", String(36)),
    Column("retry_from", String(255)),
    Column("schedule_id", String(36), index=True),
    Column("dedupe_key", String(300), unique=True),
    Column("final_output", Json),
    words("error_message"),
    Column("error_code", String(100)),
    instant("created_at"),
    instant("started_at", nullable=True),
    # Where lists have it: when it started; at the end of time while it has not.
    Column("listed_at", UtcDateTime, nullable=False, server_default="253402300799999999"),
    instant("completed_at", nullable=True),
    instant("last_activity_at"),
    count("input_tokens"),
    count("output_tokens"),
    count("total_tokens"),
    count("cost_micros"),
    count("llm_calls"),
    count("tool_invocations"),
    count("last_seq"),
    Column("owner", String(36)),
    Column("epoch", BigInteger),
    count("recovery_count"),
    Index("ix_executions_status", "status", "created_seq"),
    Index("ix_executions_listed", "listed_at", "created_seq"),
    Index("ix_executions_workflow_listed", "workflow_id", "listed_at", "created_seq"),
    Index("ix_executions_status_listed", "status", "listed_at", "created_seq"),
    Index("ix_executions_thread", "thread_id", "status"),
    Index("ix_executions_user", "user_id", "started_at"),
    Index("ix_executions_completed", "completed_at", "created_seq"),
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

execution_logs = table(
    "execution_logs",
    id_column(),
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
    words("error"),
    Column("error_code", String(100)),
    Column("metadata", Json),
    count("duration_ms"),
    instant("timestamp"),
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
    instant("updated_at"),
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
    Column("user_id", ID),
    Column("chat_id", String(255)),
    Column("credential_id", String(255)),
    words("prompt"),
    instant("created_at"),
    instant("expires_at"),
    words("answer", None),
    instant("answered_at", nullable=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", ID, primary_key=True),
    Column("workflow_id", ID, primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Json, nullable=False),
    Column("execution_id", String(36), nullable=False),
    instant("created_at"),
    Index("ix_idempotency_keys_created", "created_at"),
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
    instant("due_at", nullable=True),
    Index("ix_dispatches_due", "kind", "due_at"),
)
