"""The only place that knows SQL: one writer with group commit, a pool of readers, the schema."""

from pipelit.store.commit import Unit
from pipelit.store.errors import (
    CommitUncertain,
    ReadTimeout,
    SecretUnreadable,
    StartError,
    StorageUnavailable,
    StoreBusy,
    StoreClosed,
    StoreCorrupted,
    StoreError,
)
from pipelit.store.meter import StoreStatistics
from pipelit.store.store import Store

__all__ = [
    "CommitUncertain",
    "ReadTimeout",
    "SecretUnreadable",
    "StartError",
    "StorageUnavailable",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreCorrupted",
    "StoreError",
    "StoreStatistics",
    "Unit",
]
