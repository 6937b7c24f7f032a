"""Answers to the questions of executions, over the API and in the chat that was asked.

An answer is stored with its question, at most once, and wakes the execution in the same
transaction. Contract: engine.md §16.4, beyond.md §3.
"""

from contextlib import suppress
from typing import Literal

from sqlalchemy import Connection

from pipelit.actors.manager_messages import ManagerMessage, TakeAnswers
from pipelit.actors.runtime import ActorError, ActorRef
from pipelit.clock import Clock
from pipelit.errors import BadRequest, Conflict
from pipelit.services.executions import ExecutionView, require_visible, show
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import executions, questions

TAKE_TIMEOUT = 2.0
"""Seconds that an answer waits until its execution has gone on; it does so in any case."""

Word = Literal["confirm", "cancel"]
Answered = Literal["answered", "expired", "not_found"]
Outcome = Literal["confirmed", "cancelled", "expired", "not_found"]


class Confirmations:
    """Takes answers, and lets the executions know that waited for them."""

    def __init__(self, store: Store, clock: Clock, *, manager: ActorRef[ManagerMessage]) -> None:
        self._store = store
        self._clock = clock
        self._manager = manager

    async def resume(self, task_id: str, text: Word, chat_id: str) -> Outcome:
        """Answer a question with *text*, if it was asked in this chat and is open."""
        now = self._clock.now()

        def unit(conn: Connection) -> tuple[Answered, str]:
            found = questions.find_asked(conn, task_id, chat_id=chat_id)
            if found is None:
                return "not_found", ""
            if found.expires_at <= now:
                return "expired", ""
            stored = questions.answer(conn, found.execution_id, task_id, text, now=now)
            return ("answered" if stored else "not_found"), found.execution_id

        result, execution_id = await self._store.write(unit)
        if result != "answered":
            return result
        await self._tell(execution_id)
        return "confirmed" if text == "confirm" else "cancelled"

    async def answer(
        self, principal: Principal, execution_id: str, text: str, task_id: str | None
    ) -> ExecutionView:
        """Answer a question of an execution, by default the oldest; return the execution then.

        Raises:
            NotFound: there is no such execution, or none the caller may see.
            Conflict: the named question is not open.
            BadRequest: no question is.
        """
        now = self._clock.now()

        def unit(conn: Connection) -> None:
            row = require_visible(principal, executions.find(conn, execution_id))
            still = [q for q in questions.list_open(conn, execution_id) if q.expires_at > now]
            asked = task_id or next((question.task_id for question in still), None)
            if asked is None:
                raise BadRequest(f"Cannot resume execution with status '{row.status}'.")
            if not questions.answer(conn, execution_id, asked, text, now=now):
                raise Conflict(f"Confirmation '{asked}' is not pending.")

        await self._store.write(unit, key=execution_id)
        await self._tell(execution_id)
        row = await self._store.read(lambda conn: executions.find(conn, execution_id))
        return show(require_visible(principal, row))

    async def _tell(self, execution_id: str) -> None:
        with suppress(ActorError):  # the answer is stored: whoever looks next goes on with it
            await self._manager.ask(TakeAnswers(execution_id), timeout=TAKE_TIMEOUT)
