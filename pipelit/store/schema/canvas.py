"""Workflows as people draw them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)

from pipelit.store.schema.base import ID, count, id_column, instant, table, words
from pipelit.store.types import Json

workflows = table(
    "workflows",
    id_column(),
    Column("owner_id", ID, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("slug", String(255), nullable=False),
    words("description"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_public", Boolean, nullable=False, server_default=text("false")),
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    Column("tags", Json),
    Column("error_handler_workflow_id", ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("max_execution_seconds", Integer),
    Column("input_schema", Json),
    Column("output_schema", Json),
    Column("forked_from_id", ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    # Moves with every change of the workflow, its nodes or its edges: the key of compiled plans.
    count("version"),
    Column("dedupe_key", String(300), unique=True),
    instant("created_at"),
    instant("updated_at"),
    instant("deleted_at", nullable=True),
    # A deleted workflow keeps its slug for its executions and frees it for others.
    Index(
        "uq_workflows_slug_alive",
        "slug",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

nodes = table(
    "nodes",
    id_column(),
    Column("workflow_id", ID, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
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
    Column("llm_credential_id", ID, ForeignKey("credentials.id", ondelete="SET NULL")),
    Column("credential_id", ID, ForeignKey("credentials.id", ondelete="SET NULL")),
    Column("subworkflow_id", ID, ForeignKey("workflows.id", ondelete="SET NULL")),
    Column("code_block_id", BigInteger),
    instant("updated_at"),
    UniqueConstraint("workflow_id", "node_id"),
)

edges = table(
    "edges",
    id_column(),
    Column("workflow_id", ID, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
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
