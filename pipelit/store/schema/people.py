"""Users, their keys and what they own: credentials, workspaces; and the audit log."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String, text

from pipelit.store.schema.base import ID, id_column, instant, table, words
from pipelit.store.types import Json

users = table(
    "users",
    id_column(),
    Column("username", String(150), nullable=False, unique=True),
    Column("password_hash", String(200)),
    Column("role", String(10), nullable=False, server_default="normal"),
    Column("kind", String(10), nullable=False, server_default="human"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("first_name", String(150), nullable=False, server_default=""),
    Column("last_name", String(150), nullable=False, server_default=""),
    Column("external_id", String(255), unique=True),
    Column("created_by_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
    words("purpose"),
    words("totp_secret", None),
    words("totp_pending", None),
    Column("totp_last_step", BigInteger),
    Column("mfa_enabled", Boolean, nullable=False, server_default=text("false")),
    instant("created_at"),
)

api_keys = table(
    "api_keys",
    id_column(),
    Column("user_id", ID, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(8), nullable=False),
    Column("suffix", String(8), nullable=False),
    words("encrypted_key", None),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    instant("created_at"),
    instant("last_used_at", nullable=True),
    instant("expires_at", nullable=True),
)

audit_log = table(
    "audit_log",
    id_column(),
    Column("kind", String(40), nullable=False),
    Column("outcome", String(10), nullable=False),
    instant("created_at"),
    # Without foreign keys: an entry outlives whom it names.
    Column("user_id", ID),
    words("username"),
    Column("key_id", ID),
    words("peer"),
    words("request_id"),
    Column("subject", Json, nullable=False),
    Index("ix_audit_log_outcome", "outcome", "id"),
    Index("ix_audit_log_kind", "kind", "id"),
    Index("ix_audit_log_username", "username", "id"),
)

workspaces = table(
    "workspaces",
    id_column(),
    Column("owner_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("name", String(100), nullable=False, unique=True),
    words("path"),
    Column("allow_network", Boolean, nullable=False, server_default=text("false")),
    Column("env_vars", Json, nullable=False),
    instant("created_at"),
)

credentials = table(
    "credentials",
    id_column(),
    Column("created_by_id", ID, ForeignKey("users.id", ondelete="SET NULL")),
    Column("name", String(255), nullable=False),
    Column("credential_type", String(10), nullable=False),
    # The type's fields in clear, its secrets encrypted one by one.
    Column("detail", Json, nullable=False),
    instant("created_at"),
    instant("updated_at"),
)
