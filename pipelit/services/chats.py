"""Chat: messages in, transcript out. Contract: chat.md."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from pipelit.actors.chats import Post
from pipelit.actors.runtime import ActorDied, ActorRef, AskTimeout, MailboxFull
from pipelit.clock import Ids, format_instant
from pipelit.engine.messages import ChatMessage
from pipelit.engine.trigger import chat_trigger
from pipelit.errors import BadRequest, Conflict, NotFound, Unavailable
from pipelit.services.canvas import get_readable
from pipelit.services.principal import Principal
from pipelit.services.starts import (
    ENQUEUE_FAILED,
    INACTIVE,
    KEY_REUSED,
    Fired,
    RepeatableRequest,
    Started,
    Starter,
    choose_trigger,
    find_target,
    idempotency,
)
from pipelit.store import Store
from pipelit.store.queries import threads
from pipelit.store.queries.executions import KeyReused, NewExecution

NO_TRIGGER = "No chat trigger found."
POST_TIMEOUT = 10.0
"""Seconds for a message to be stored."""


class ChatTurn(msgspec.Struct, frozen=True):
    """One message of a transcript."""

    role: str
    text: str
    timestamp: datetime | None


class History(msgspec.Struct, frozen=True):
    """A page of a transcript, oldest first."""

    messages: list[ChatTurn]
    thread_id: str
    has_more: bool


class ChatsService:
    """What the contract's chat section lets people do: always in their own thread."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        ids: Ids,
        *,
        session: Callable[[str], ActorRef[Any]],
    ) -> None:
        self._store = store
        self._starter = starter
        self._ids = ids
        self._session = session

    async def post(
        self,
        principal: Principal,
        slug: str,
        *,
        text: str,
        trigger_node_id: str | None,
        request: RepeatableRequest | None,
    ) -> Started:
        """Store a message and the execution it starts; the reply comes by event.

        Raises:
            NotFound: workflow or chat trigger.
            BadRequest: the workflow is inactive.
            Conflict: the Idempotency-Key belongs to another request.
            Unavailable: the session's queue is full, or the server stops.
        """
        now = self._starter.now()
        target = await self._store.read(
            lambda conn: find_target(conn, principal, slug, "trigger_chat", request, now=now)
        )
        if target.replay is not None:
            return target.replay
        trigger = choose_trigger(target.triggers, trigger_node_id)
        if trigger is None:
            raise NotFound(NO_TRIGGER)
        if not target.workflow.is_active:
            raise BadRequest(INACTIVE)
        thread_id = f"{principal.user_id}:{target.workflow.id}"
        payload = {"text": text}
        new = self._starter.describe(
            Fired(
                workflow=target.workflow,
                trigger_node=trigger,
                user_id=principal.user_id,
                source="chat",
                payload=payload,
                trigger=chat_trigger(
                    payload, user_id=principal.user_id, user_name=principal.username
                ),
                thread_id=thread_id,
                serial=True,
            )
        )
        answer = Started({"execution_id": new.id, "status": "pending", "response": ""})
        post = Post(new, self._transcript(new, text), idempotency(request, answer))
        try:
            replay = await self._session(thread_id).ask(post, timeout=POST_TIMEOUT)
        except (MailboxFull, ActorDied, AskTimeout) as error:
            raise Unavailable(ENQUEUE_FAILED) from error
        except KeyReused as error:
            raise Conflict(KEY_REUSED) from error
        if replay is not None:
            return Started(replay.body, replay.status, replayed=True)
        return answer

    async def history(
        self, principal: Principal, slug: str, *, limit: int, before: datetime | None
    ) -> History:
        """Return the newest messages of the caller's thread that are older than *before*.

        Raises:
            NotFound: workflow.
        """
        workflow = await self._store.read(lambda conn: get_readable(conn, principal, slug))
        thread_id = f"{principal.user_id}:{workflow.id}"
        found, has_more = await self._store.read(
            lambda conn: threads.history(
                conn, thread_id, threads.TRANSCRIPT, limit=limit, before=before
            )
        )
        turns = [
            ChatTurn(turn.role, str(turn.message.get("content", "")), turn.timestamp)
            for turn in found
        ]
        return History(turns, thread_id, has_more)

    async def forget(self, principal: Principal, slug: str) -> None:
        """Delete the caller's thread with all its namespaces: agents forget it too.

        Raises:
            NotFound: workflow.
        """
        workflow = await self._store.read(lambda conn: get_readable(conn, principal, slug))
        thread_id = f"{principal.user_id}:{workflow.id}"
        await self._store.write(lambda conn: threads.delete_thread(conn, thread_id))

    def _transcript(self, new: NewExecution, text: str) -> threads.ThreadAppend:
        message = ChatMessage(
            id=self._ids.hex(12),
            role="user",
            content=text,
            timestamp=format_instant(new.created_at),
        )
        return threads.ThreadAppend(
            thread_id=new.thread_id,
            namespace=threads.TRANSCRIPT,
            source="input",
            checkpoint_id=self._ids.ordered_uuid(new.created_at),
            execution_id=new.id,
            now=new.created_at,
            messages=(("user", message.to_json()),),
        )
