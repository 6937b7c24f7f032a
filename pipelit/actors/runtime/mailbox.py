"""A mailbox: two lanes, a capacity, a policy for the day it is full. Knows nothing of actors.

The *system* lane holds what its owner itself set going; it is served first and not counted. The
*user* lane holds everybody else's messages and is bounded.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec
import trio

T = TypeVar("T")

_HIGH_WATER = 0.8
_LOW_WATER = 0.5


class Overflow(StrEnum):
    """What a full mailbox does with one message more."""

    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class Mailbox(msgspec.Struct, frozen=True):
    """Size and policy of a mailbox. `capacity`: waiting messages, at least 1."""

    capacity: int = 64
    overflow: Overflow = Overflow.REJECT

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {self.capacity}")


class Full(Exception):
    """The policy is `REJECT` and there is no room."""


class MailQueue(Generic[T]):
    """The waiting messages of one owner. One reader, any number of senders.

    Invariant: the user lane never holds more than `capacity` items.
    """

    def __init__(self, mailbox: Mailbox, on_water: Callable[[bool], None]) -> None:
        """Make an empty queue. *on_water* is told `True` at 80 %, `False` under 50 % again."""
        self.capacity = mailbox.capacity
        self._overflow = mailbox.overflow
        self._on_water = on_water
        self._high = math.ceil(self.capacity * _HIGH_WATER)
        self._low = self.capacity * _LOW_WATER
        self._is_high = False
        self._system: deque[T] = deque()
        self._user: deque[T] = deque()
        self._reader = trio.lowlevel.ParkingLot()

    @property
    def depth(self) -> int:
        """Messages waiting in the user lane."""
        return len(self._user)

    def __bool__(self) -> bool:
        return bool(self._user or self._system)

    def put(self, item: T) -> T | None:
        """Add *item* to the user lane.

        Returns:
            The item that had to go instead (it may be *item*), or `None`.

        Raises:
            Full: there is no room and the policy is `REJECT`.
        """
        dropped = None
        if len(self._user) >= self.capacity:
            if self._overflow is Overflow.REJECT:
                raise Full
            if self._overflow is Overflow.DROP_NEWEST:
                return item
            dropped = self._user.popleft()
        self._user.append(item)
        if not self._is_high and len(self._user) >= self._high:
            self._is_high = True
            self._on_water(True)
        if self._reader:
            self._reader.unpark_all()
        return dropped

    def put_system(self, item: T) -> None:
        """Add *item* to the system lane. Always succeeds."""
        self._system.append(item)
        if self._reader:
            self._reader.unpark_all()

    def take(self) -> T | None:
        """Remove and return the next item, the system lane's first; `None` if there is none."""
        if self._system:
            return self._system.popleft()
        if not self._user:
            return None
        item = self._user.popleft()
        self._check_low()
        return item

    def take_all(self) -> list[T]:
        """Remove and return everything in the user lane."""
        items = list(self._user)
        self._user.clear()
        self._check_low()
        return items

    def clear_system(self) -> None:
        """Forget what the owner's incarnation had set going; it ends with the incarnation."""
        self._system.clear()

    def wake(self) -> None:
        """Let the reader look again, whether or not there is mail."""
        self._reader.unpark_all()

    async def wait(self) -> None:
        """Wait until something was put or `wake` was called. Cancelling loses nothing."""
        await self._reader.park()

    def _check_low(self) -> None:
        if self._is_high and len(self._user) < self._low:
            self._is_high = False
            self._on_water(False)
