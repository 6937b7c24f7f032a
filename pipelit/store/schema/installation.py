"""The database and the servers that use it."""

from sqlalchemy import BigInteger, Boolean, Column, String, Table, text

from pipelit.store.schema.base import instant, metadata, words

meta = Table("meta", metadata, Column("key", String(100), primary_key=True), words("value"))

servers = Table(
    "servers",
    metadata,
    Column("node_id", String(36), primary_key=True),
    Column("epoch", BigInteger, nullable=False, unique=True),
    instant("started_at"),
    instant("lease_until"),
    Column("released", Boolean, nullable=False, server_default=text("false")),
)
