"""The `identify_user` step: who is talking, and what is known about them.

Contract: node-types.md §9.3.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from pipelit.clock import format_instant
from pipelit.engine.outcome import Outcome, Report
from pipelit.engine.values import to_text
from pipelit.nodes.base import Component, NodeCall
from pipelit.nodes.memory import Fact, MemoryFailed


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody as the channel names them."""

    channel: str
    id: str
    display_name: str | None

    @property
    def canonical_id(self) -> str:
        """The id of the memory user."""
        return f"{'gw' if self.channel == 'gateway' else self.channel}:{self.id}"


class Encounter(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who talks to a workflow."""

    canonical_id: str
    display_name: str | None
    workflow_id: int


class Known(msgspec.Struct, frozen=True):
    """An earlier run for somebody."""

    summary: str | None
    success: bool
    when: datetime


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about somebody. `is_new`: there was no earlier conversation."""

    user_id: str
    is_new: bool
    display_name: str | None
    preferences: Any
    total_conversations: int
    first_seen: datetime
    facts: tuple[Fact, ...]
    history: tuple[Known, ...]


class Acquaintances(Protocol):
    """The people the memory knows."""

    async def meet(self, encounter: Encounter) -> Met:
        """Find or make the memory user of somebody, and count the conversation.

        Raises:
            MemoryFailed: the memory cannot be reached.
        """


class _Source(msgspec.Struct, frozen=True):
    """Where a channel keeps names: the first path that gives one."""

    id_paths: tuple[str, ...]
    no_id: str
    name_paths: tuple[str, ...]
    no_name: str | None = None


_PERSON = _Source(("user_id",), "manual_user", ("user_name",), "Manual User")
_STRANGER = _Source(("user_id",), "unknown", ("user_name",))
_SOURCES: Mapping[str, _Source] = {
    "gateway": _Source(
        ("user.id", "user_id", "gw_user_id"),
        "unknown",
        ("user.name", "user.first_name", "user_name"),
    ),
    "webhook": _Source(("user_id", "email"), "anonymous", ("user_name", "name")),
    "manual": _PERSON,
    "chat": _PERSON,
}


def identify_user_component(acquaintances: Acquaintances) -> Component:
    """Return the component of type `identify_user`."""

    async def identify_user(call: NodeCall) -> Outcome:
        given = next(_ports_named(call, "trigger_input"), call.state["trigger"])
        data = given if isinstance(given, dict) else {}
        channel = to_text(call.extra.get("channel")) or next(
            filter(None, map(to_text, _ports_named(call, "channel"))), detect_channel(data)
        )
        identity = identify(channel, data)
        encounter = Encounter(
            canonical_id=identity.canonical_id,
            display_name=identity.display_name,
            workflow_id=call.identity.workflow_id,
        )
        try:
            met = await acquaintances.meet(encounter)
        except MemoryFailed as error:
            return _outcome(
                identity,
                user_id=None,
                context={"is_new": True, "facts": [], "history": []},
                report=Report(warnings=({"code": "memory_unavailable", "message": str(error)},)),
            )
        return _outcome(identity, user_id=met.user_id, context=_context(met), report=Report())

    return identify_user


def _ports_named(call: NodeCall, port: str) -> Iterator[Any]:
    for node_id in call.predecessors:
        value = (call.state["node_outputs"].get(node_id) or {}).get(port)
        if value is not None:
            yield value


def detect_channel(data: Mapping[str, Any]) -> str:
    """Return the channel an input object came over. Pure."""
    source = _find(data, ("source",))
    if source == "gateway" or _find(data, ("gateway_user", "gw_user_id")):
        return "gateway"
    if _find(data, ("webhook_id",)):
        return "webhook"
    return source if source in ("manual", "chat") else "unknown"


def identify(channel: str, data: Mapping[str, Any]) -> Identity:
    """Return who an input object of a channel speaks of. Pure."""
    source = _SOURCES.get(channel, _STRANGER)
    return Identity(
        channel=channel,
        id=_find(data, source.id_paths) or source.no_id,
        display_name=_find(data, source.name_paths) or source.no_name,
    )


def _find(data: Mapping[str, Any], paths: Sequence[str]) -> str:
    """Return the text at the first path that has one: at top level, then in the payload."""
    for place in (data, data.get("payload")):
        for path in paths:
            value: Any = place
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None and not isinstance(value, bool) and to_text(value):
                return to_text(value)
    return ""


def _context(met: Met) -> dict[str, Any]:
    return {
        "user_id": met.user_id,
        "is_new": met.is_new,
        "display_name": met.display_name,
        "preferences": met.preferences,
        "facts": [
            {"key": fact.key, "value": fact.value, "type": fact.fact_type} for fact in met.facts
        ],
        "history": [
            {"summary": past.summary, "success": past.success, "when": format_instant(past.when)}
            for past in met.history
        ],
        "total_conversations": met.total_conversations,
        "first_seen": format_instant(met.first_seen),
    }


def _outcome(
    identity: Identity, *, user_id: str | None, context: dict[str, Any], report: Report
) -> Outcome:
    is_new: bool = context["is_new"]
    known = {
        "display_name": identity.display_name,
        **context,
        "user_id": user_id,
        "is_new_user": is_new,
        "canonical_id": identity.canonical_id,
        "channel": identity.channel,
    }
    return Outcome(
        ports={"user_id": user_id, "user_context": context, "is_new_user": is_new},
        state_patch={"user_context": known},
        report=report,
    )
