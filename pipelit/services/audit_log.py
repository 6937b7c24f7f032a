"""The audit log: who did what that matters for security. Contract: operations.md §7."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import structlog

from pipelit.clock import Clock
from pipelit.store import Store, StoreError
from pipelit.store.queries import security_log as queries
from pipelit.store.queries.security_log import Entry, NewEntry, Outcome

__all__ = ["Act", "AuditLog", "Entry", "NewEntry", "Outcome", "log_entry"]

Act = Literal[
    "setup",
    "login",
    "login_code",
    "mfa_setup",
    "mfa_enable",
    "mfa_disable",
    "mfa_reset",
    "user_create",
    "user_change",
    "user_disable",
    "profile_change",
    "agent_create",
    "agent_key_read",
    "agent_delete",
    "key_create",
    "key_revoke",
    "credential_create",
    "credential_read",
    "credential_use",
    "credential_change",
    "credential_delete",
    "settings_change",
]
"""What may happen that matters for security."""

_log = structlog.get_logger(__name__)


def log_entry(entry: NewEntry) -> None:
    """Write *entry* into the server's log."""
    # Not the name of somebody who may not exist: people type passwords into the wrong field.
    name = {} if entry.user_id is None else {"username": entry.username}
    _log.info(
        "audit",
        kind=entry.kind,
        outcome=entry.outcome,
        user_id=entry.user_id,
        key_id=entry.key_id,
        peer=entry.peer,
        request_id=entry.request_id,
        subject=entry.subject,
        **name,
    )


class AuditLog:
    """Writes acts into the log and the database, and shows the newest."""

    def __init__(self, store: Store, clock: Clock, *, keep: int) -> None:
        """`keep`: how many acts, and how many refusals, stay in the database."""
        self._store = store
        self._clock = clock
        self._keep = keep

    async def record(self, entry: NewEntry) -> None:
        """Write *entry* down. Raises nothing but cancellation.

        The act has happened already: if the database does not take the entry, the log line, which
        comes first, is all there is.
        """
        log_entry(entry)
        insert = partial(
            queries.insert_entry, entry=entry, created_at=self._clock.now(), keep=self._keep
        )
        try:
            await self._store.write(insert)
        except StoreError as error:
            _log.error("audit entry not stored", kind=entry.kind, error=str(error))

    async def browse(
        self, *, kind: str | None, username: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Entry], int]:
        """Return a page of entries, newest first, and how many match."""
        return await self._store.read(
            partial(queries.list_entries, kind=kind, username=username, limit=limit, offset=offset)
        )
