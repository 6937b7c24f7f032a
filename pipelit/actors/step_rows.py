"""From the engine's changes to the store's rows. No decisions, no waiting."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipelit.clock import Ids, format_instant
from pipelit.engine.changes import Changes, Question
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Usage
from pipelit.engine.output import delivery_text, reply_text
from pipelit.engine.records import activation, record_kind
from pipelit.nodes.base import RunEvent
from pipelit.nodes.identify_user import detect_channel, identify
from pipelit.store.queries import journal as rows
from pipelit.store.queries import questions
from pipelit.store.queries.budgets import Settled
from pipelit.store.queries.dispatches import DELIVERY
from pipelit.store.queries.episodes import Opening
from pipelit.store.queries.threads import TRANSCRIPT, ThreadAppend


class Stamp(msgspec.Struct, frozen=True):
    """When a step happens, and how much active time the execution has used by then."""

    now: datetime
    active_us: int


class StepRows:
    """Builds the steps of one execution."""

    def __init__(self, loaded: rows.Loaded, owner: rows.Owner, ids: Ids) -> None:
        self._loaded = loaded
        self._owner = owner
        self._ids = ids

    def build(
        self,
        changes: Changes,
        *,
        position: int,
        usage: Usage,
        stamp: Stamp,
        begin: rows.Begin | None,
        remember: tuple[str, Sequence[ChatMessage]],
        open_questions: Collection[str] = (),
    ) -> rows.Step:
        """Return the step of *changes*.

        Args:
            changes: what the engine decided.
            position: journal records written so far.
            usage: the execution's totals after this step.
            stamp: when.
            begin: set for the first step.
            remember: (node, messages) to add to the node's memory of the thread.
            open_questions: those without answer after this step.
        """
        records = (
            rows.JournalRow(
                position + index,
                *activation(record),
                record_kind(record),
                msgspec.to_builtins(record),
            )
            for index, record in enumerate(changes.records, start=1)
        )
        logs = (
            rows.LogRow(timestamp=stamp.now, **msgspec.structs.asdict(log)) for log in changes.logs
        )
        events = (rows.EventDraft(event.type, event.data) for event in changes.events)
        return rows.Step(
            execution_id=self._loaded.id,
            owner=self._owner,
            now=stamp.now,
            active_us=stamp.active_us,
            records=tuple(records),
            logs=tuple(logs),
            events=tuple(events),
            appends=self._appends(changes, remember, stamp.now),
            totals=rows.Totals(**msgspec.structs.asdict(usage)),
            begin=begin,
            episode=None if begin is None else self._episode(begin.snapshot),
            end=self._end(changes),
            questions=tuple(self._question(question, stamp.now) for question in changes.questions),
            waits_for=tuple(open_questions) if changes.interrupted else (),
            dispatches=self._dispatches(changes),
            starts=bool(changes.started),
        )

    def progress(
        self,
        key: tuple[str, str],
        state: Any,
        events: Sequence[RunEvent],
        *,
        stamp: Stamp,
        settled: tuple[Settled, ...],
    ) -> rows.Step:
        """Return the step that saves the progress of a node in an iteration."""
        return rows.Step(
            execution_id=self._loaded.id,
            owner=self._owner,
            now=stamp.now,
            active_us=stamp.active_us,
            events=tuple(rows.EventDraft(event.type, event.data) for event in events),
            checkpoint=rows.Checkpoint(*key, state),
            settled=settled,
        )

    def first_message(self) -> tuple[ChatMessage, ...]:
        """Return the message that begins the conversation: the trigger's text, if it has one."""
        text = self._loaded.trigger.get("text")
        if not isinstance(text, str) or not text:
            return ()
        at = format_instant(self._loaded.created_at)
        return (ChatMessage(id=self._ids.hex(12), role="user", content=text, timestamp=at),)

    @property
    def memory_thread(self) -> str:
        """The thread an agent's memory belongs to (engine.md §23.2)."""
        who = self._loaded.user_id if self._loaded.user_id is not None else "anon"
        chat_id = (self._loaded.user_context or {}).get("chat_id")
        chat = "" if chat_id is None else f"{chat_id}:"
        return f"{who}:{chat}{self._loaded.workflow_id}"

    def _question(self, question: Question, now: datetime) -> questions.Question:
        trigger = self._loaded.trigger
        credential_id, chat_id = trigger.get("credential_id"), trigger.get("chat_id")
        return questions.Question(
            task_id=question.task_id,
            node_id=question.node_id,
            iteration=question.iteration,
            kind=question.kind,
            user_id=self._loaded.user_id,
            chat_id=None if chat_id is None else str(chat_id),
            credential_id=None if credential_id is None else str(credential_id),
            prompt=question.prompt,
            created_at=now,
            expires_at=datetime.fromtimestamp(question.expires_at, UTC),
        )

    def _episode(self, snapshot: Any) -> Opening:
        """Return the episode that begins: who talks to which workflow, over which trigger."""
        firing = self._loaded.trigger_node_id
        types = (n["component_type"] for n in snapshot["nodes"] if n["node_id"] == firing)
        trigger = self._loaded.trigger
        return Opening(
            workflow_id=self._loaded.workflow_id,
            user_id=identify(detect_channel(trigger), trigger).canonical_id,
            trigger_type=next(types, "").removeprefix("trigger_"),
        )

    def _end(self, changes: Changes) -> rows.End | None:
        if changes.ending is None:
            return None
        ending = changes.ending
        return rows.End(
            status=ending.status,
            final_output=ending.final_output,
            error_message=ending.error_message,
            error_code=ending.error_code,
        )

    def _dispatches(self, changes: Changes) -> tuple[str, ...]:
        """Return what is to be done after the end: a reply for the chat that asked."""
        ending, trigger = changes.ending, self._loaded.trigger
        if ending is None or ending.status != "completed" or self._loaded.source == "workflow":
            return ()
        has_chat = trigger.get("credential_id") and trigger.get("chat_id")
        return (DELIVERY,) if has_chat and delivery_text(ending.final_output) else ()

    def _appends(
        self, changes: Changes, remember: tuple[str, Sequence[ChatMessage]], now: datetime
    ) -> tuple[ThreadAppend, ...]:
        appends = []
        node_id, messages = remember
        if messages:
            stored = tuple((message.role, message.to_json()) for message in messages)
            appends.append(self._append(self.memory_thread, node_id, "loop", stored, now))
        text = reply_text(changes.ending.final_output) if changes.ending else None
        if text is not None and self._loaded.source == "chat":
            message = ChatMessage(
                id=self._ids.hex(12),
                role="assistant",
                content=text,
                timestamp=format_instant(now),
            )
            stored = (("assistant", message.to_json()),)
            appends.append(self._append(self._loaded.thread_id, TRANSCRIPT, "loop", stored, now))
        return tuple(appends)

    def _append(
        self,
        thread_id: str,
        namespace: str,
        source: str,
        messages: tuple[tuple[str, dict[str, Any]], ...],
        now: datetime,
    ) -> ThreadAppend:
        return ThreadAppend(
            thread_id=thread_id,
            namespace=namespace,
            source=source,
            checkpoint_id=self._ids.ordered_uuid(now),
            execution_id=self._loaded.id,
            now=now,
            messages=messages,
        )
