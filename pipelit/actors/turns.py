"""Changes that are told: commit, then publish, in the order of the commits.

Contract: websocket.md "Event envelope" (canvas events of one workflow and events of one epic arrive
in the order they happened).
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
import trio

from pipelit.clock import format_instant
from pipelit.store import Store, Unit

_T = TypeVar("_T")

Publish = Callable[[str, str, dict[str, Any]], None]
"""Tells whoever listens: channel, event type, data. Never blocks, never raises."""


class News(msgspec.Struct, frozen=True):
    """Something to tell those who listen to `channel`."""

    channel: str
    type: str
    data: dict[str, Any]


class Subjects:
    """The locks of what is being changed, by subject. Shared by all who tell about a subject."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    def lock(self, subject: str) -> trio.Lock:
        """Return the lock of a subject, the same for as long as anybody holds or awaits it."""
        return self._locks.setdefault(subject, trio.Lock())


class Turns:
    """Lets the changes of one subject take turns; changes of different subjects do not wait.

    Tasks that wake together run in any order, so only a turn that lasts from the unit to its
    events keeps the events in order.
    """

    def __init__(self, store: Store, publish: Publish, subjects: Subjects) -> None:
        self._store = store
        self._publish = publish
        self._subjects = subjects

    async def write(
        self,
        subjects: Collection[str],
        unit: Unit[_T],
        tell: Callable[[_T], Iterable[News]],
    ) -> _T:
        """Commit *unit*, a change of these *subjects*, then publish what *tell* makes of it.

        What the unit raises is raised here, and nothing is told. Cancelling while others have
        their turn changes nothing; a change that was committed is told.
        """
        async with AsyncExitStack() as stack:
            # In one order everywhere, so that two changes never wait for each other.
            for subject in sorted(set(subjects)):
                await stack.enter_async_context(self._subjects.lock(subject))
            result = await self._store.write(unit, key=min(subjects, default=None))
            for news in tell(result):
                self._publish(news.channel, news.type, news.data)
        return result


def event_data(view: msgspec.Struct) -> dict[str, Any]:
    """Return a view as the data of an event, the same JSON that REST answers."""
    data: dict[str, Any] = _shown(msgspec.to_builtins(view, builtin_types=(datetime,)))
    return data


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
