"""Ends the waiting for answers: closes questions whose time is over, also after a restart.

The time of a question is stored; closing it and waking its execution is one transaction, so every
question expires exactly once, whoever looks. Contract: engine.md §16.5.
"""

from datetime import datetime
from typing import TypeAlias, assert_never

import structlog

from pipelit.actors import paths
from pipelit.actors.manager_messages import ManagerMessage, TakeAnswers
from pipelit.actors.questions import QuestionOpen
from pipelit.actors.runtime import Actor, ActorError, ActorRef, Message
from pipelit.clock import Clock
from pipelit.store import Store, StoreError
from pipelit.store.queries import questions

INTERVAL = 30.0
PAGE = 500

log = structlog.get_logger(__name__)


class Due(Message, frozen=True):
    """The next question to expire has had its time."""


class Round(Message, frozen=True):
    """Time to look without being told: for the questions of other servers."""


ExpiriesMessage: TypeAlias = QuestionOpen | Due | Round


class Expiries(Actor[ExpiriesMessage]):
    """One per server."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._next: datetime | None = None

    async def on_start(self) -> None:
        """Close what expired while no server ran."""
        self._manager: ActorRef[ManagerMessage] = self.ctx.system.ref(paths.MANAGER)
        self.ctx.post(Round())

    async def receive(self, message: ExpiriesMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case QuestionOpen():
                if self._next is None:  # else an earlier one wakes this actor
                    await self._look()
            case Due():
                self._next = None
                await self._look()
            case Round():
                await self._look()
                self.ctx.after(INTERVAL, Round())
            case _:
                assert_never(message)

    async def _look(self) -> None:
        try:
            while await self._expire():
                pass
            due = await self._store.read(questions.next_expiry)
        except StoreError as error:
            # The database does not answer: what it holds waits for the next round.
            log.warning("expiries postponed", error=str(error))
            return
        if due is not None and (self._next is None or due < self._next):
            self._next = due
            left = (due - self._clock.now()).total_seconds()
            self.ctx.after(max(0.0, left), Due())

    async def _expire(self) -> bool:
        """Close a page of questions; tell whether there may be more."""
        now = self._clock.now()
        due = await self._store.read(questions.next_expiry)
        if due is None or due > now:
            return False
        woken = await self._store.write(lambda conn: questions.expire(conn, now=now, limit=PAGE))
        for execution_id in woken:
            try:
                self._manager.tell(TakeAnswers(execution_id))
            except ActorError:  # a full mailbox: its actor, or the reconciler, finds it
                log.warning("take-up postponed", execution_id=execution_id)
        return bool(woken)
