"""Answers to the questions of executions, given in the chat that was asked. engine.md §16.4."""

from typing import Literal

from pipelit.clock import Clock
from pipelit.store import Store
from pipelit.store.queries.questions import answer_question

Word = Literal["confirm", "cancel"]
Outcome = Literal["confirmed", "cancelled", "expired", "not_found"]


class Confirmations:
    """Takes answers from chats. The answer is stored with its question; the owner sees it there."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def resume(self, task_id: str, text: Word, chat_id: str) -> Outcome:
        """Answer a question with *text*, if it was asked in this chat and is open."""
        now = self._clock.now()
        result = await self._store.write(
            lambda conn: answer_question(conn, task_id, text, chat_id=chat_id, now=now)
        )
        if result != "answered":
            return result
        return "confirmed" if text == "confirm" else "cancelled"
