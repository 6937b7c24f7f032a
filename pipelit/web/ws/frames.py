"""What a client may say on its WebSocket, and what is said back.

Contract: websocket.md, "Client frames". Everything that is not listed there is silently nothing.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from pipelit.web.ws.feed import execution_of

MAX_CHANNEL = 300


class Subscribe(msgspec.Struct, frozen=True):
    """Wants events of a channel; with `since`, stored events after that number first."""

    channel: str
    since: int | None = None


class Unsubscribe(msgspec.Struct, frozen=True):
    """Wants no more events of a channel."""

    channel: str


class Batch(msgspec.Struct, frozen=True):
    """Wants waiting events together in one frame, or not any more."""

    enabled: bool


class Pong(msgspec.Struct, frozen=True):
    """Answers a ping."""


ClientFrame: TypeAlias = Subscribe | Unsubscribe | Batch | Pong

PING = b'{"type":"ping"}'


def parse_frame(text: str) -> ClientFrame | None:
    """Read a client's frame; None for anything that is ignored."""
    try:
        frame = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if not isinstance(frame, dict):
        return None
    match frame.get("type"):
        case "subscribe":
            return _parse_subscribe(frame)
        case "unsubscribe":
            channel = _parse_channel(frame)
            return None if channel is None else Unsubscribe(channel)
        case "batch":
            enabled = frame.get("enabled")
            return Batch(enabled) if isinstance(enabled, bool) else None
        case "pong":
            return Pong()
        case _:
            return None


def _parse_subscribe(frame: dict[str, object]) -> Subscribe | None:
    channel = _parse_channel(frame)
    if channel is None:
        return None
    if "since" not in frame or execution_of(channel) is None:
        return Subscribe(channel)
    since = frame["since"]
    if isinstance(since, float) and since.is_integer():
        since = int(since)
    if not isinstance(since, int) or isinstance(since, bool) or since < 0:
        return None
    return Subscribe(channel, since)


def _parse_channel(frame: dict[str, object]) -> str | None:
    channel = frame.get("channel")
    if isinstance(channel, str) and 0 < len(channel) <= MAX_CHANNEL:
        return channel
    return None


def subscribed(channel: str, last_seq: int | None) -> bytes:
    """Encode the answer to `subscribe`."""
    answer: dict[str, object] = {"type": "subscribed", "channel": channel}
    if last_seq is not None:
        answer["last_seq"] = last_seq
    return msgspec.json.encode(answer)


def unsubscribed(channel: str) -> bytes:
    """Encode the answer to `unsubscribe`."""
    return msgspec.json.encode({"type": "unsubscribed", "channel": channel})


def batch(*, enabled: bool) -> bytes:
    """Encode the answer to `batch`."""
    return msgspec.json.encode({"type": "batch", "enabled": enabled})


def join(events: Sequence[bytes]) -> bytes:
    """Join encoded events into one JSON array."""
    return b"[" + b",".join(events) + b"]"
