"""What a writer hears that may not write any more. Contract: engine.md §10.7."""

from typing import Self

from sqlalchemy import Connection, select

from pipelit.store.schema import executions


class Fenced(Exception):
    """The execution belongs to somebody else, or has ended: nothing was written.

    `owner`, `epoch`: whose it is now; None: nobody's.
    """

    def __init__(
        self, execution_id: str, owner: str | None = None, epoch: int | None = None
    ) -> None:
        super().__init__(execution_id)
        self.owner, self.epoch = owner, epoch

    @classmethod
    def of(cls, conn: Connection, execution_id: str) -> Self:
        """Return the refusal, with whoever owns the execution now."""
        wanted = select(executions.c.owner, executions.c.epoch).where(
            executions.c.id == execution_id
        )
        return cls(execution_id, *(conn.execute(wanted).one_or_none() or ()))
