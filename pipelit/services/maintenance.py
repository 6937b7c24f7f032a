"""Work on a database beside the server, from its settings. Contract: operations.md §4."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelit.clock import Clock, Ids
from pipelit.settings import Settings
from pipelit.store import StoreConfig, maintain, rotate
from pipelit.store.maintain import BackedUp, Finding, Upgraded
from pipelit.store.rotate import Rotated
from pipelit.store.secrets import new_key

__all__ = [
    "BackedUp",
    "Finding",
    "Rotated",
    "Upgraded",
    "back_up",
    "check",
    "rotate_key",
    "upgrade",
]


def upgrade(settings: Settings, say: Callable[[str], None]) -> Upgraded:
    """Migrate the database; see `pipelit.store.maintain`."""
    return maintain.upgrade(_config(settings), say)


def back_up(settings: Settings, target: Path | None) -> BackedUp:
    """Copy the database while servers use it."""
    return maintain.back_up_to(_config(settings), target)


def check(settings: Settings) -> Sequence[Finding]:
    """Look whether the database is sound."""
    return maintain.check(_config(settings))


def rotate_key(settings: Settings, reveal: Callable[[str], None]) -> Rotated:
    """Re-encrypt all secrets under a new key."""
    return rotate.rotate_key(_config(settings), key=new_key(), reveal=reveal)


def _config(settings: Settings) -> StoreConfig:
    return StoreConfig(
        database_url=settings.database_url,
        data_dir=settings.data_dir,
        encryption_key=settings.field_encryption_key.get_secret_value() or None,
        now=Clock().now(),
        new_node_id=Ids().uuid(),
    )
