"""Conversations, what agents remember, and files they keep."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    text,
)

from pipelit.store.schema.base import ID, count, instant, metadata, words
from pipelit.store.types import Json

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
    instant("created_at"),
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
    instant("timestamp"),
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
    count("times_contradicted"),
    count("access_count"),
    instant("last_accessed", nullable=True),
    instant("created_at"),
    instant("updated_at"),
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
    words("summary", None),
    instant("started_at"),
    instant("ended_at", nullable=True),
    Column("duration_ms", BigInteger),
    instant("created_at"),
)

procedures = Table(
    "procedures",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("agent_id", String(255), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    words("description"),
    Column("procedure_type", String(50), nullable=False),
    Column("trigger_conditions", Json),
    Column("content", Json),
    count("times_used"),
    count("times_succeeded"),
    count("times_failed"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    instant("created_at"),
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
    count("total_conversations"),
    instant("first_seen_at"),
    instant("last_seen_at"),
    instant("created_at"),
)

# Files of deep agents with the backend `store`, per workflow and user (node-types.md §5.2).
agent_files = Table(
    "agent_files",
    metadata,
    Column("workflow_id", ID, ForeignKey("workflows.id", ondelete="CASCADE"), primary_key=True),
    # The id of a user profile, or `anon`.
    Column("user_key", String(36), primary_key=True),
    Column("path", String(255), primary_key=True),
    words("content"),
    Column("size", Integer, nullable=False),
    instant("updated_at"),
)
