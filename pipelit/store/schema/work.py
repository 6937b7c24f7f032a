"""Epics, tasks, and the model calls that their budgets pay for."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, text

from pipelit.store.schema.base import ID, count, instant, metadata, words
from pipelit.store.types import Json

epics = Table(
    "epics",
    metadata,
    Column("id", String(15), primary_key=True),
    Column("title", String(255), nullable=False),
    words("description"),
    Column("tags", Json, nullable=False),
    Column("created_by_node_id", String(255)),
    Column("workflow_id", ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("user_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("status", String(10), nullable=False, server_default="planning"),
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("budget_tokens", BigInteger),
    Column("budget_micros", BigInteger),
    count("spent_tokens"),
    count("spent_micros"),
    count("agent_overhead_tokens"),
    count("agent_overhead_micros"),
    count("total_tasks"),
    count("completed_tasks"),
    count("failed_tasks"),
    Column("dedupe_key", String(300), unique=True),
    instant("created_at"),
    instant("updated_at"),
    instant("completed_at", nullable=True),
    words("result_summary", None),
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
    words("description"),
    Column("tags", Json, nullable=False),
    Column("created_by_node_id", String(255)),
    Column("status", String(10), nullable=False, server_default="pending"),
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("workflow_id", ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("workflow_slug", String(255)),
    Column("execution_id", String(36), index=True),
    Column("workflow_source", String(20), nullable=False, server_default="inline"),
    Column("depends_on", Json, nullable=False),
    Column("requirements", Json),
    Column("estimated_tokens", BigInteger),
    count("actual_tokens"),
    count("actual_micros"),
    count("llm_calls"),
    count("tool_invocations"),
    count("duration_ms"),
    Column("dedupe_key", String(300), unique=True),
    instant("created_at"),
    instant("updated_at"),
    instant("started_at", nullable=True),
    instant("completed_at", nullable=True),
    words("result_summary", None),
    words("error_message", None),
    count("retry_count"),
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
    instant("created_at"),
    Index("ix_reservations_epic", "epic_id"),
)
