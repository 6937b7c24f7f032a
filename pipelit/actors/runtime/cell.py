"""One actor: its mailbox, its turns, and what it started."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Never, TypeVarTuple, cast

import trio

from pipelit.actors.runtime.actor import Actor, Context
from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.envelope import (
    Envelope,
    ExitNotice,
    Slot,
    Turn,
    current_turn,
    take_origin,
)
from pipelit.actors.runtime.errors import (
    ActorDied,
    ActorError,
    ActorRestarting,
    NoReply,
)
from pipelit.actors.runtime.lifecycle import Cell
from pipelit.actors.runtime.mail_cell import Mail, MailCell
from pipelit.actors.runtime.mailbox import Mailbox
from pipelit.actors.runtime.messages import Exit, ExitReason, Message
from pipelit.actors.runtime.records import Detail
from pipelit.actors.runtime.restart import Policy, Window

if TYPE_CHECKING:
    from pipelit.actors.runtime.ref import ActorRef

Ts = TypeVarTuple("Ts")

MAX_BURST = 64
"""Turns without a checkpoint, so that a chatty mailbox starves nobody."""


class ActorCell(MailCell):
    """One actor. One turn at a time, whatever its mail is."""

    def __init__(
        self,
        directory: Directory,
        parent: Cell,
        name: str,
        start: Callable[[], Actor[Never]],
        *,
        kind: str,
        policy: Policy,
        window: Window,
        mailbox: Mailbox,
        detail: Detail,
        idle_after: float | None = None,
    ) -> None:
        """Register an actor. *idle_after*: seconds, for a member of a family."""
        super().__init__(
            directory,
            parent,
            name,
            kind=kind,
            policy=policy,
            window=window,
            mailbox=mailbox,
            detail=detail,
        )
        self.handling: str | None = None
        self.handling_since = 0.0
        self._start = start
        self._idle_after = idle_after
        self._reset()

    def _reset(self) -> None:
        self._actor: Actor[Never] | None = None
        self._own: trio.Nursery | None = None
        self._own_tasks = 0
        self._current: Envelope | None = None
        self._deferred: set[Slot] = set()
        self._watched: set[str] = set()
        self._drains = False
        self._stops = False
        self._is_idle = False
        self._idle_since = 0.0

    async def live(self) -> None:
        """Start the actor, let it turn, end its own tasks."""
        self._enter(Turn(self.path, self.log_context))
        self._actor = actor = self._start()
        actor.ctx = Context(self)
        async with trio.open_nursery() as own:
            self._own = own
            await actor.on_start()
            self.came_up()
            self._idle_since = trio.current_time()
            await self._turns(actor)
            own.cancel_scope.cancel()

    async def release(self, end: Exit) -> None:
        """Run `on_stop` of an actor that was made."""
        if self._actor is not None:
            self._enter(Turn(self.path, self.log_context))
            await self._actor.on_stop(end)

    def over(self, end: Exit, *, restarts: bool) -> None:
        """Fail the asks in hand, forget watches, own posts and the instance."""
        slots = list(self._deferred)
        if self._current is not None and self._current.slot is not None:
            slots.append(self._current.slot)
        for slot in slots:
            slot.fail(self._loss(end, restarts=restarts))
        for path in self._watched:
            self.directory.unwatch(path, self)
        self.mail.clear_system()
        self.handling = None
        self._reset()

    def own_end(self) -> ExitReason:
        """Return `passivated` for a member that was idle."""
        return ExitReason.PASSIVATED if self._is_idle else ExitReason.NORMAL

    def comes_again(self, end: Exit) -> bool:
        """Say whether mail came for a family member while it was ending by itself."""
        by_itself = end.reason in (ExitReason.PASSIVATED, ExitReason.NORMAL)
        return self._idle_after is not None and by_itself and self.mail.depth > 0

    def message_type(self) -> str | None:
        """Return the type of the message in hand."""
        return self.handling

    async def _turns(self, actor: Actor[Never]) -> None:
        burst = 0
        while not self._stops:
            if self.stop_why is not None and not self._drains:
                self._drains = True
                self._enter(Turn(self.path, self.log_context))
                await actor.on_drain()
                continue
            mail = self.mail.take()
            if mail is not None:
                await self._turn(actor, mail)
                burst += 1
                if burst < MAX_BURST:
                    continue
                await trio.lowlevel.checkpoint()
            else:
                await self._wait_for_mail()
            burst = 0

    async def _turn(self, actor: Actor[Never], mail: Mail) -> None:
        if isinstance(mail, ExitNotice):
            mail = Envelope(mail.on_exit(mail.exit), incoming=False, origin={})
        slot = mail.slot
        if slot is not None and slot.abandoned:
            self.directory.dead_letter(self.path, mail, "abandoned")
            return
        take_origin(mail)
        message = mail.message
        name = type(message).__name__
        asked_by = mail.sender if slot is not None else None
        self._enter(
            Turn(self.path, self.log_context, message_type=name, via=slot, asked_by=asked_by)
        )
        self._current = mail
        self.handling = name
        self.handling_since = trio.current_time()
        if self.directory.faults is not None:
            self.directory.faults.before_turn(self.path)
        # The directory is untyped: that the message is of this protocol is the ref's promise.
        await actor.receive(cast("Never", message))
        self.handled += 1
        self.handling = None
        self._current = None
        if mail.incoming:
            self._idle_since = trio.current_time()
        if mail.slot is not None and mail.slot.open:
            mail.slot.fail(NoReply(self.path, name))

    async def _wait_for_mail(self) -> None:
        """Wait for mail or a reason to look up; find out that the actor is idle."""
        if self._idle_after is None or self.is_ending or self._own_tasks:
            await self.mail.wait()
            return
        # An asker may leave unnoticed, so a promised reply is looked at again after a while.
        since = trio.current_time() if self._owes_a_reply() else self._idle_since
        with trio.move_on_at(since + self._idle_after) as scope:
            await self.mail.wait()
        if scope.cancelled_caught and not (self.mail or self.is_ending or self._owes_a_reply()):
            self._is_idle = self._stops = True

    def _owes_a_reply(self) -> bool:
        return any(slot.open for slot in self._deferred)

    def _enter(self, turn: Turn) -> None:
        current_turn.set(turn)

    def _loss(self, end: Exit, *, restarts: bool) -> ActorDied:
        return (ActorRestarting if restarts else ActorDied)(self.path, end)

    def post(self, message: Message) -> None:
        """Put a message of the actor's own into the system lane."""
        self.mail.put_system(Envelope(message, incoming=False))

    def stop_now(self) -> None:
        """End after the running turn."""
        self._stops = True
        self.mail.wake()

    def start_timer(self, seconds: float, message: Message) -> trio.CancelScope:
        """Post *message* after so many seconds; return what cancels it."""
        scope = trio.CancelScope()

        async def fire() -> None:
            with scope:
                await trio.sleep(seconds)
                self.post(message)

        self._nursery().start_soon(fire)
        return scope

    def start_own_task(
        self,
        fn: Callable[[*Ts], Awaitable[object]],
        args: tuple[*Ts],
        name: str | None,
    ) -> trio.CancelScope:
        """Start an own task; return what cancels it."""
        scope = trio.CancelScope()

        async def own_task() -> None:
            # Not a turn: an ask from here leaves the actor listening, so no cycle goes through it.
            self._enter(Turn(self.path, self.log_context, holds=False))
            try:
                with scope:
                    await fn(*args)
            finally:
                self._own_tasks -= 1
                if self._own_tasks == 0:
                    self.mail.wake()

        self._nursery().start_soon(own_task, name=name or getattr(fn, "__qualname__", repr(fn)))
        self._own_tasks += 1
        return scope

    def watch(self, ref: "ActorRef[Any]", on_exit: Callable[[Exit], Message]) -> None:
        """Let the end of *ref* be a message of this actor, once, also if it is over already."""

        def tell(end: Exit) -> None:
            self._watched.discard(ref.path)
            self.mail.put_system(ExitNotice(on_exit, end))

        self._watched.add(ref.path)
        if not self.directory.watch(ref.path, self, tell):
            tell(ref.last_exit)

    def unwatch(self, ref: "ActorRef[Any]") -> None:
        """Forget the watch of *ref*."""
        self._watched.discard(ref.path)
        self.directory.unwatch(ref.path, self)

    def reply(self, request: Message, value: object) -> None:
        """Answer the request in hand; nobody hears it if it was told, not asked."""
        slot = self._slot_of(request)
        if slot is None:
            return
        faults = self.directory.faults
        delay = 0.0 if faults is None else faults.reply_delay(self.path)
        if delay:
            self._send_later(self.defer(request), value, delay)
        else:
            slot.send(value)

    def refuse(self, request: Message, error: Exception) -> None:
        """Answer the request in hand by raising *error* at the asker."""
        slot = self._slot_of(request)
        if slot is not None:
            slot.fail(error)

    def defer(self, request: Message) -> Slot:
        """Take the answer of the request in hand out of the turn."""
        slot = self._slot_of(request)
        if slot is None:
            return Slot()
        assert self._current is not None
        self._current.slot = None
        self._deferred.add(slot)
        return slot

    def settled_later(self, slot: Slot) -> None:
        """Note that a deferred answer was given."""
        self._deferred.discard(slot)
        if not self._deferred:
            self.mail.wake()

    def _send_later(self, slot: Slot, value: object, delay: float) -> None:
        async def send() -> None:
            await trio.sleep(delay)
            slot.send(value)
            self.settled_later(slot)

        self._nursery().start_soon(send)

    def _slot_of(self, request: Message) -> Slot | None:
        if self._current is None or self._current.message is not request:
            name = type(request).__name__
            raise ActorError(f"{self.path}: {name} is not the message of this turn; use defer")
        return self._current.slot

    def _nursery(self) -> trio.Nursery:
        if self._own is None:
            raise ActorError(f"{self.path}: no own tasks and timers outside an incarnation")
        return self._own
