"""One chat session: accepts messages durably, runs its executions one at a time, in order.

A member of the family `chats`, keyed by thread; passivated when idle and rebuilt from the store.
Contract: chat.md.
"""

import math
from collections import deque
from typing import TypeAlias, assert_never

from pipelit.actors import paths
from pipelit.actors.manager_messages import Join, ManagerMessage, Run
from pipelit.actors.questions import Resumed
from pipelit.actors.runtime import (
    Actor,
    ActorDied,
    ActorRef,
    ActorRestarting,
    Message,
    Request,
)
from pipelit.errors import Unavailable
from pipelit.store import Store, StoreError
from pipelit.store.queries import executions as queries
from pipelit.store.queries.sessions import session_queue
from pipelit.store.queries.threads import ThreadAppend

MAX_WAITING = 50
ENQUEUE_FAILED = "Failed to enqueue workflow execution."


class Post(Request[queries.Replay | None], frozen=True):
    """A user's message, as the execution it becomes; without `transcript` it was said before.

    Replies after the commit: None, or the first response of a repeated request. Refusals:
    `Unavailable` when the session's queue is full, `KeyReused`, `StoreError`.
    """

    new: queries.NewExecution
    transcript: ThreadAppend | None
    idempotency: queries.Idempotency | None = None


class Wake(Message, frozen=True):
    """Messages may be waiting in the store: starting is enough to find them."""


class RunOver(Message, frozen=True):
    """The execution at the head of the queue does not run any more."""

    execution_id: str


ChatMessage: TypeAlias = Post | Wake | RunOver | Resumed


class ChatSession(Actor[ChatMessage]):
    """Owned by the family; asks the manager."""

    def __init__(self, thread_id: str, store: Store) -> None:
        self._thread_id = thread_id
        self._store = store
        self._queue: deque[str] = deque()  # the head runs, or waits for a slot
        self._fresh: set[str] = set()  # of the queue, those known to be pending
        self._running = False

    async def on_start(self) -> None:
        """Find what runs and what waits."""
        self._manager: ActorRef[ManagerMessage] = self.ctx.system.ref(paths.MANAGER)
        await self._look()
        self._run_next()

    async def receive(self, message: ChatMessage) -> None:
        """Handle one message; see each message's docstring."""
        match message:
            case Post():
                await self._post(message)
            case Wake():
                if not self._running:  # another server left it here, or it was just started
                    await self._look()
                    self._run_next()
            case Resumed(execution_id=execution_id):
                if execution_id not in self._queue:
                    self._queue.insert(1 if self._running else 0, execution_id)
                    self._run_next()
            case RunOver(execution_id=execution_id):
                if self._queue and self._queue[0] == execution_id:
                    self._queue.popleft()
                self._running = False
                if self._store.is_shared:
                    await self._look()
                self._run_next()
            case _:
                assert_never(message)

    async def _post(self, post: Post) -> None:
        if len(self._queue) > MAX_WAITING:
            await self._forget_cancelled()
        if len(self._queue) > MAX_WAITING:
            self.refuse(post, Unavailable(ENQUEUE_FAILED))
            return
        try:
            replay = await self._store.write(
                lambda conn: queries.create(
                    conn, post.new, transcript=post.transcript, idempotency=post.idempotency
                ),
                key=self._thread_id,
            )
        except (queries.KeyReused, StoreError) as error:
            self.refuse(post, error)
            return
        self.reply(post, replay)
        if replay is None:
            self._queue.append(post.new.id)
            self._fresh.add(post.new.id)
            self._run_next()

    async def _look(self) -> None:
        """Take the queue from the store: other servers run and accept messages, too."""
        self._queue = deque(
            await self._store.read(lambda conn: session_queue(conn, self._thread_id), patient=True)
        )
        self._fresh.clear()

    async def _forget_cancelled(self) -> None:
        """Make room: what was cancelled while it waited is still in the queue."""
        kept = set(await self._store.read(lambda conn: session_queue(conn, self._thread_id)))
        head, *waiting = self._queue
        self._queue = deque([head, *(one for one in waiting if one in kept)])
        self._fresh &= set(self._queue)

    def _run_next(self) -> None:
        if self._queue and not self._running:
            self._running = True
            head = self._queue[0]
            fresh = head in self._fresh
            self._fresh.discard(head)
            self.ctx.start_soon(self._run, head, Run(head) if fresh else Join(head))

    async def _run(self, execution_id: str, request: Run | Join) -> None:
        """Have the manager run it and wait for its end, however often the manager restarts."""
        while True:
            try:
                await self._manager.ask(request, timeout=math.inf)
            except ActorRestarting:
                request = Join(execution_id)
                continue
            except ActorDied:  # the server stops: the store keeps the queue
                return
            self.ctx.post(RunOver(execution_id))
            return
