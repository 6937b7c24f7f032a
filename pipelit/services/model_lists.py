"""Which models a credential was last seen to offer, so that a document need not ask a provider.

Kept in memory only: after a restart lists are unknown until somebody asks for them again.
"""

from collections.abc import Sequence
from datetime import datetime

MAX_LISTS = 1000
"""Lists kept; one more drops the oldest."""


class ModelLists:
    """The lists of one server. Written by the event loop, read by any thread."""

    def __init__(self) -> None:
        self._lists: dict[int, tuple[datetime, tuple[str, ...]]] = {}

    def remember(self, credential_id: int, changed_at: datetime, models: Sequence[str]) -> None:
        """Keep what a provider answered; an empty list means that it did not.

        Args:
            changed_at: when the credential was last changed. A later change makes the list void,
                for the credential may belong to another account now.
        """
        if not models:
            return
        self._lists.pop(credential_id, None)
        if len(self._lists) >= MAX_LISTS:
            del self._lists[next(iter(self._lists))]
        self._lists[credential_id] = (changed_at, tuple(models))

    def find(self, credential_id: int, changed_at: datetime) -> tuple[str, ...] | None:
        """Return the models of a credential as it is now; None if they are not known."""
        known = self._lists.get(credential_id)
        return known[1] if known is not None and known[0] == changed_at else None
