"""Wall-clock time and identifiers, injected so that a whole server runs on a mock clock and a seed.

Deadlines inside the process use `trio.current_time()`; only what is stored or shown is wall time.
"""

import base64
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import trio

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Tells the wall-clock time. Production: the system's clock."""

    def now(self) -> datetime:
        """Return the present instant, aware UTC, to the microsecond."""
        return datetime.now(UTC)


class TrioClock(Clock):
    """Wall time derived from the Trio clock, so that a mock clock moves both. For tests."""

    def __init__(self, start: datetime) -> None:
        self._start = start

    def now(self) -> datetime:
        """Return the start plus what the Trio clock has run."""
        return self._start + timedelta(seconds=trio.current_time())


class Ids:
    """Source of identifiers and secrets. Production: the operating system's randomness."""

    def __init__(self, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random_bytes = random_bytes

    @classmethod
    def seeded(cls, seed: int) -> "Ids":
        """Return a reproducible source. Never for production: its secrets are guessable."""
        return cls(Random(seed).randbytes)

    def uuid(self) -> str:
        """Return a random UUID (version 4) as lower-case text."""
        return str(uuid.UUID(bytes=self._random_bytes(16), version=4))

    def ordered_uuid(self, now: datetime) -> str:
        """Return a UUID (version 7) whose text order is the order of *now*, in milliseconds."""
        millis = (now - _EPOCH) // timedelta(milliseconds=1)
        raw = bytearray(millis.to_bytes(6, "big") + self._random_bytes(10))
        raw[6] = raw[6] & 0x0F | 0x70
        raw[8] = raw[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(raw)))

    def hex(self, digits: int) -> str:
        """Return *digits* random lower-case hexadecimal digits."""
        return self._random_bytes((digits + 1) // 2).hex()[:digits]

    def token(self) -> str:
        """Return a secret of 256 bits as 43 characters of URL-safe text."""
        return base64.urlsafe_b64encode(self._random_bytes(32)).rstrip(b"=").decode()


def format_instant(value: datetime) -> str:
    """Format an aware datetime as the contract shows it: UTC, no offset, no `Z`.

    Contract: README.md §6.
    """
    return value.astimezone(UTC).replace(tzinfo=None).isoformat()
