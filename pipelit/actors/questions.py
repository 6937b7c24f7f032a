"""The questions of one execution: who is to be asked now, in which words, where.

Knows neither the journal nor the clock: its execution's actor asks, stores and goes on.
Contract: engine.md §16.
"""

from collections.abc import Iterable
from contextlib import suppress

from pipelit.actors import paths
from pipelit.actors.delivery import Say
from pipelit.actors.runtime import ActorError, Message, System
from pipelit.clock import Ids
from pipelit.engine.changes import Kind, Question
from pipelit.engine.graph import Plan
from pipelit.engine.questions import Asking, flag_prompt, is_confirmation
from pipelit.store.queries.journal import Loaded


class QuestionOpen(Message, frozen=True):
    """A question was asked: it may be the next one to expire."""


class Resumed(Message, frozen=True):
    """A run of a chat session goes on: later messages wait for it again."""

    execution_id: str


class Questions:
    """Remembers which questions are being put into words, so that each is put once."""

    def __init__(self, ids: Ids, *, open_seconds: float) -> None:
        self._ids = ids
        self._open_seconds = open_seconds
        self._being_worded: set[Asking] = set()

    def take(self, unasked: Iterable[Asking]) -> list[Asking]:
        """Return those that are new: they are to be put into words, then `make` is called."""
        new = [question for question in unasked if question not in self._being_worded]
        self._being_worded.update(new)
        return new

    def make(self, plan: Plan, asking: Asking, prompt: str | None, now: float) -> Question | None:
        """Return the question of a node, None if it has no words."""
        self._being_worded.discard(asking)
        node_id, iteration, when = asking
        kind: Kind = "interrupt_before" if when == "before" else "interrupt_after"
        if when == "before" and is_confirmation(plan.nodes[node_id]):
            kind = "human_confirmation"
        else:
            prompt = flag_prompt(node_id, when)
        if prompt is None:
            return None
        return Question(
            task_id=self._ids.hex(8),
            node_id=node_id,
            iteration=iteration,
            kind=kind,
            prompt=prompt,
            expires_at=now + self._open_seconds,
        )


def announce(system: System, loaded: Loaded, question: Question) -> None:
    """Let those know who serve questions: the clock of expiries, and the chat, if there is one."""
    with suppress(ActorError):  # its next round finds it
        system.ref(paths.EXPIRIES).tell(QuestionOpen())
    chat = chat_of(loaded)
    if chat is not None:
        task_id = question.task_id
        text = f"{question.prompt}\n\nTo confirm: /confirm_{task_id}\nTo cancel: /cancel_{task_id}"
        with suppress(ActorError):  # best effort
            system.ref(paths.DELIVERY).tell(Say(*chat, text))


def rejoin(system: System, loaded: Loaded) -> None:
    """Let the chat session of a run that goes on know, if it is of one (engine.md §7.2)."""
    if loaded.serial:
        with suppress(ActorError):  # it stops, or has more than enough to do
            system.family(paths.CHATS).ref(loaded.thread_id).tell(Resumed(loaded.id))


def chat_of(loaded: Loaded) -> tuple[str, str] | None:
    """Return the credential and the chat that the trigger came with, if it did from a chat."""
    credential_id, chat_id = loaded.trigger.get("credential_id"), loaded.trigger.get("chat_id")
    return (str(credential_id), str(chat_id)) if credential_id and chat_id else None
