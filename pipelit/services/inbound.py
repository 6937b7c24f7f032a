"""Messages from the message gateway: they start workflows, or answer questions. beyond.md §4."""

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.engine.trigger import gateway_trigger
from pipelit.errors import Forbidden, Invalid, NotFound, ServerFault, Unauthenticated
from pipelit.services.confirmations import Confirmations, Word
from pipelit.services.starts import (
    Fired,
    NoWorkTaken,
    RepeatableRequest,
    Started,
    Starter,
    choose_trigger,
    find_replay,
)
from pipelit.store import Store
from pipelit.store.queries.contacts import Contact, ensure_contact, find_contact
from pipelit.store.queries.credentials import list_gateway_details
from pipelit.store.queries.executions import NewExecution
from pipelit.store.queries.nodes import NodeRow, list_triggers
from pipelit.store.queries.workflows import WorkflowRow, find_workflow

NOT_CONFIGURED = "Gateway token not configured"
BAD_TOKEN = "Invalid gateway token"
NO_WORKFLOW = "Workflow not found"
INACTIVE = "Workflow is inactive"
NO_TRIGGER = "Trigger node not found"
NOT_ALLOWED = "Sender not allowed"
NOT_STARTED = "Execution failed to start"
ANONYMOUS = "gateway_anonymous"

REPLIES = {
    "confirmed": "Action confirmed. Resuming execution...",
    "cancelled": "Action cancelled.",
    "expired": "This confirmation has expired.",
}

_COMMAND = re.compile(r"/(confirm|cancel)_(\w+)")

Tell = Callable[[str, str, str], None]
"""Sends words to a chat, best effort: credential, chat, text. Never waits, never raises."""


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote, as the gateway knows them."""

    id: str
    username: str | None
    display_name: str | None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came with a message."""

    filename: str
    mime_type: str
    size_bytes: int
    url: str


class InboundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message and where it is to go."""

    workflow_slug: str
    trigger_node_id: str
    credential_id: str
    protocol: str
    chat_id: str
    message_id: str
    sender: Sender | None
    text: str
    attachments: tuple[Attachment, ...]

    @property
    def external_id(self) -> str | None:
        """The sender's id; None for a sender without one."""
        return None if self.sender is None else self.sender.id

    @property
    def command(self) -> tuple[Word, str] | None:
        """The answer to a question that the text is, and the question; None if it is none."""
        match = _COMMAND.fullmatch(self.text.strip())
        if match is None:
            return None
        return ("confirm" if match[1] == "confirm" else "cancel"), match[2]


class _Found(msgspec.Struct, frozen=True):
    workflow: WorkflowRow
    contact: Contact | None
    triggers: Sequence[NodeRow]
    replay: Started | None
    allowed: bool


class InboundService:
    """What the message gateway may do."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        confirmations: Confirmations,
        *,
        token: str,
        tell: Tell,
    ) -> None:
        self._store = store
        self._starter = starter
        self._confirmations = confirmations
        self._token = token
        self._tell = tell

    def check_token(self, given: str | None) -> None:
        """Let only the gateway in.

        Raises:
            ServerFault: there is no token to compare with.
            Unauthenticated: another token, or none.
        """
        if not self._token:
            raise ServerFault(NOT_CONFIGURED)
        if not hmac.compare_digest((given or "").encode(), self._token.encode()):
            raise Unauthenticated(BAD_TOKEN)

    async def receive(self, message: InboundMessage, request: RepeatableRequest | None) -> Started:
        """Start the execution that a message asks for, or answer the question it is about.

        Raises:
            NotFound: workflow or trigger node.
            Conflict: the Idempotency-Key belongs to another request.
            Invalid: the workflow is inactive.
            Forbidden: the sender may not use this credential.
            TooLarge: the message does not fit into a trigger.
            ServerFault: the engine takes no work.
        """
        command = message.command
        repeatable = None if command else request
        found = await self._find(message, repeatable)
        if found.replay is not None:
            return found.replay
        if not found.workflow.is_active:
            raise Invalid(INACTIVE)
        trigger_node = choose_trigger(found.triggers, message.trigger_node_id)
        if trigger_node is None:
            raise NotFound(NO_TRIGGER)
        if not found.allowed:
            raise Forbidden(NOT_ALLOWED)
        if command is not None:
            return await self._answer(message, *command)
        return await self._start(message, found.workflow, trigger_node, repeatable)

    async def _find(self, message: InboundMessage, request: RepeatableRequest | None) -> _Found:
        now = self._starter.now()

        def query(conn: Connection) -> _Found:
            workflow = find_workflow(conn, message.workflow_slug)
            if workflow is None:
                raise NotFound(NO_WORKFLOW)
            contact, replay = find_contact(conn, message.external_id), None
            if contact is not None:
                replay = find_replay(conn, contact.id, workflow.id, request, now=now)
            triggers = list_triggers(conn, workflow.id)
            allowed = contact is None or contact.is_active
            allowed = allowed and _may_use(conn, message.credential_id, message.external_id)
            return _Found(workflow, contact, triggers, replay, allowed)

        return await self._store.read(query)

    async def _answer(self, message: InboundMessage, text: Word, task_id: str) -> Started:
        status = await self._confirmations.resume(task_id, text, message.chat_id)
        if status in REPLIES:
            self._tell(message.credential_id, message.chat_id, REPLIES[status])
        return Started({"status": status, "task_id": task_id})

    async def _start(
        self,
        message: InboundMessage,
        workflow: WorkflowRow,
        trigger_node: NodeRow,
        request: RepeatableRequest | None,
    ) -> Started:
        payload = _payload(message)
        sender = message.sender
        new = self._starter.describe(
            Fired(
                workflow=workflow,
                trigger_node=trigger_node,
                user_id=0,  # known in the transaction that may make the account
                source="gateway",
                payload=payload,
                trigger=gateway_trigger(
                    payload,
                    user_name=(sender and (sender.display_name or sender.username)) or "",
                    protocol=message.protocol,
                    telegram=trigger_node.component_type == "trigger_telegram",
                ),
                user_context={"chat_id": message.chat_id},
            )
        )

        def of_sender(conn: Connection, new: NewExecution) -> NewExecution:
            user_id = ensure_contact(
                conn, message.external_id, _username(sender), created_at=new.created_at
            )
            return msgspec.structs.replace(new, user_id=user_id)

        answer = Started({"execution_id": new.id, "status": "pending"}, status=202)
        try:
            return await self._starter.start(new, answer, request, adjust=of_sender)
        except NoWorkTaken as error:
            raise ServerFault(NOT_STARTED) from error


def _may_use(conn: Connection, credential_id: str, external_id: str | None) -> bool:
    """Whether no stored credential of this id keeps its chats to other people."""
    for detail in list_gateway_details(conn):
        if detail.get("gateway_credential_id") == credential_id:
            allowed = {one.strip() for one in detail.get("allowed_user_ids", "").split(",")}
            allowed.discard("")
            if allowed and external_id not in allowed:
                return False
    return True


def _username(sender: Sender | None) -> str:
    if sender is None:
        return ANONYMOUS
    return sender.username or f"gw_{sender.id}"


def _payload(message: InboundMessage) -> dict[str, Any]:
    lines = (
        f"\n[Attached file: {file.filename} | url: {file.url} | type: {file.mime_type}]"
        for file in message.attachments
    )
    return {
        "text": message.text + "".join(lines),
        "chat_id": message.chat_id,
        "message_id": message.message_id,
        "credential_id": message.credential_id,
        "user_id": message.external_id or "",
        "files": [msgspec.structs.asdict(file) for file in message.attachments],
    }
