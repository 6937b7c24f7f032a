"""Sends replies to the chats they belong to, through the message gateway, at least once.

What is to be sent is a row, written with the end of its execution; a crash only delays it. Said
words (answers to commands) are not stored: best effort. Contract: engine.md §10.6, §19.
"""

from contextlib import suppress
from datetime import timedelta
from typing import TypeAlias, assert_never

import structlog
import trio
from sqlalchemy import Connection

from pipelit.actors import paths
from pipelit.actors.runtime import Actor, ActorError, Message, System
from pipelit.clock import Clock
from pipelit.engine.output import delivery_text
from pipelit.net.gateway import Gateway, GatewayError
from pipelit.store import Store, StoreError
from pipelit.store.queries import dispatches
from pipelit.store.queries.dispatches import DELIVERY, Dispatch

RETRIES = (1.0, 2.0, 4.0)
"""Seconds before each further attempt."""
ATTEMPT = 40.0
"""Seconds that an attempt takes at most, with what is around it."""
INTERVAL = 30.0
MAX_AT_ONCE = 16
MAX_WAITING = 1000

log = structlog.get_logger(__name__)


class Look(Message, frozen=True):
    """Something may be due."""


class Round(Message, frozen=True):
    """Time to look without being asked: for what a crash left behind."""


class Say(Message, frozen=True):
    """Words for a chat, not stored."""

    credential_id: str
    chat_id: str
    text: str


class Sent(Message, frozen=True):
    """An attempt is over. `retry_in`: seconds until the next one, None: there is none."""

    retry_in: float | None = None


DeliveryMessage: TypeAlias = Look | Round | Say | Sent


def wake(system: System) -> None:
    """Let what an execution has just left to be sent be sent at once."""
    with suppress(ActorError):  # the next round finds it
        system.ref(paths.DELIVERY).tell(Look())


class Delivery(Actor[DeliveryMessage]):
    """One per server."""

    def __init__(self, store: Store, clock: Clock, gateway: Gateway) -> None:
        self._store = store
        self._clock = clock
        self._gateway = gateway
        self._under_way = 0
        self._words = trio.CapacityLimiter(MAX_AT_ONCE)

    async def on_start(self) -> None:
        """Take up what an earlier server, or incarnation, did not get done."""
        now = self._clock.now()
        await self._store.write(lambda conn: dispatches.reopen(conn, DELIVERY, now=now))
        self.ctx.post(Round())

    async def receive(self, message: DeliveryMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case Look():
                await self._look()
            case Round():
                await self._look()
                self.ctx.after(INTERVAL, Round())
            case Say():
                if self._words.statistics().tasks_waiting < MAX_WAITING:
                    self.ctx.start_soon(self._say, message)
            case Sent(retry_in=retry_in):
                self._under_way -= 1
                if retry_in is not None:
                    self.ctx.after(retry_in, Look())
                await self._look()
            case _:
                assert_never(message)

    async def _look(self) -> None:
        room = MAX_AT_ONCE - self._under_way
        if room <= 0:
            return  # the end of one that is under way looks again
        now = self._clock.now()

        def take(conn: Connection) -> list[Dispatch]:
            until = now + timedelta(seconds=ATTEMPT)
            return dispatches.take_due(conn, DELIVERY, now=now, until=until, limit=room)

        try:
            due = await self._store.read(lambda conn: dispatches.next_due(conn, DELIVERY))
            taken = await self._store.write(take) if due is not None and due <= now else []
        except StoreError as error:
            # The database does not answer: what it holds waits for the next round.
            log.warning("deliveries postponed", error=str(error))
            return
        for dispatch in taken:
            self._under_way += 1
            self.ctx.start_soon(self._deliver, dispatch, name=dispatch.execution_id)

    # Own tasks: they wait, and post what follows.

    async def _deliver(self, dispatch: Dispatch) -> None:
        """Make one attempt and note what came of it."""
        retry_in = None
        try:
            await self._send(dispatch)
        except GatewayError as error:
            retry_in = self._retry_in(dispatch.attempts)
            log.warning(
                "delivery failed" if retry_in is None else "delivery postponed",
                execution_id=dispatch.execution_id,
                attempt=dispatch.attempts,
                error=str(error),
            )
        try:
            await self._note(dispatch.execution_id, retry_in)
        except StoreError as error:
            # Not noted: it comes up again when the time of this attempt is over.
            log.warning("delivery not noted", execution_id=dispatch.execution_id, error=str(error))
        self.ctx.post(Sent(retry_in))

    async def _send(self, dispatch: Dispatch) -> None:
        text = delivery_text(dispatch.final_output)
        if text:
            to = dispatch.trigger
            await self._gateway.send(str(to["credential_id"]), str(to["chat_id"]), text)

    def _retry_in(self, attempts: int) -> float | None:
        more = self._gateway.is_configured and attempts <= len(RETRIES)
        return RETRIES[attempts - 1] if more else None

    async def _note(self, execution_id: str, retry_in: float | None) -> None:
        if retry_in is None:
            await self._store.write(lambda conn: dispatches.finish(conn, DELIVERY, execution_id))
            return
        due_at = self._clock.now() + timedelta(seconds=retry_in)
        await self._store.write(
            lambda conn: dispatches.postpone(conn, DELIVERY, execution_id, due_at=due_at)
        )

    async def _say(self, words: Say) -> None:
        async with self._words:
            try:
                await self._gateway.send(words.credential_id, words.chat_id, words.text)
            except GatewayError as error:
                log.warning("words not sent", chat_id=words.chat_id, error=str(error))
