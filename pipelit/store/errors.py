"""What can go wrong between the product and its database."""

from pipelit.errors import PipelitError, Unavailable

_NOT_AVAILABLE = "Storage is not available."


class StoreError(PipelitError):
    """Root of the store's own failures. Errors of a unit's SQL or code reach its caller as is."""


class StartError(StoreError):
    """The store cannot be opened. The message is one sentence for the operator."""


class StorageUnavailable(StoreError, Unavailable):
    """The database takes no writes or does not answer: full, read-only, locked or gone.

    You get this only when nothing of the unit was committed. Contract: operations.md §5.
    """

    def __init__(self) -> None:
        super().__init__(_NOT_AVAILABLE)


class StoreBusy(StorageUnavailable):
    """The writer's queue is full; the unit was not queued."""


class StoreClosed(StoreError, Unavailable):
    """The writer has ended; the unit was not committed and never will be."""

    def __init__(self) -> None:
        super().__init__("Server is shutting down.", retry_after=1)


class CommitUncertain(StoreError, Unavailable):
    """The connection broke while committing and the database cannot say what became of it.

    The unit is committed completely or not at all. Whoever gets this has to look before it acts:
    repeating is safe only for a unit that can tell that it ran already. SQLite never raises it.
    A request is told what it is told of any trouble with storage; `reason` is for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(_NOT_AVAILABLE)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StoreCorrupted(StoreError):
    """The database file is damaged. No restart helps; an operator has to restore a backup."""


class ReadTimeout(StorageUnavailable):
    """A query took longer than its deadline and was abandoned."""


class SecretUnreadable(StoreError):
    """A stored secret was not encrypted with the present key, or is damaged."""
