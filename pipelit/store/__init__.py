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
from pipelit.store.open import OpenStore, StoreConfig, open_store
from pipelit.store.secrets import Secrets
from pipelit.store.store import Store

__all__ = [
    "CommitUncertain",
    "OpenStore",
    "ReadTimeout",
    "SecretUnreadable",
    "Secrets",
    "StartError",
    "StorageUnavailable",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreConfig",
    "StoreCorrupted",
    "StoreError",
    "StoreStatistics",
    "Unit",
    "open_store",
]
