"""Limits how fast anybody can guess codes. Contract: auth.md, MFA: Rate, Lockout, State."""

import math
from collections import OrderedDict, deque
from datetime import UTC, datetime, timedelta

from pipelit.errors import TooMany

TOO_MANY = "Too many MFA attempts. Please wait a minute."
LOCKED = "Account temporarily locked due to too many failed attempts. Try again later."

_CHECKS, _WINDOW = 5, timedelta(seconds=60)
_WRONG_IN_A_ROW, _LOCKOUT = 10, timedelta(seconds=900)


class _Record:
    """The last checks of one user."""

    __slots__ = ("checks", "last_wrong", "wrong")

    def __init__(self) -> None:
        self.checks: deque[datetime] = deque(maxlen=_CHECKS)
        self.wrong = 0
        self.last_wrong = datetime.min.replace(tzinfo=UTC)

    def refuse_locked(self, now: datetime) -> None:
        if self.wrong >= _WRONG_IN_A_ROW and self.last_wrong + _LOCKOUT > now:
            raise TooMany(LOCKED, retry_after=_seconds(self.last_wrong + _LOCKOUT - now))

    def refuse_fast(self, now: datetime) -> None:
        if len(self.checks) == _CHECKS and self.checks[0] + _WINDOW > now:
            raise TooMany(TOO_MANY, retry_after=_seconds(self.checks[0] + _WINDOW - now))


class CodeGuard:
    """Counts code checks per user, in memory. Pure but for that; the caller tells the time.

    It remembers only users who had a code checked within the length of a lockout.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[int, _Record] = OrderedDict()  # the last checked is last

    def admit(self, user_id: int, now: datetime) -> None:
        """Count a check that is about to happen.

        Raises:
            TooMany: the user is locked out, or was checked too often; then nothing is counted.
        """
        self._forget(now)
        record = self._records.get(user_id) or _Record()
        record.refuse_locked(now)
        record.refuse_fast(now)
        record.checks.append(now)
        self._records[user_id] = record
        self._records.move_to_end(user_id)

    def settle(self, user_id: int, now: datetime, *, right: bool) -> None:
        """Count what came of the check that was admitted last."""
        record = self._records[user_id]
        if right:
            record.wrong = 0
            return
        is_new_row = record.wrong == 0 or record.last_wrong + _LOCKOUT <= now
        record.wrong = 1 if is_new_row else record.wrong + 1
        record.last_wrong = now

    def _forget(self, now: datetime) -> None:
        while self._records:
            user_id, oldest = next(iter(self._records.items()))
            if oldest.checks[-1] + _LOCKOUT > now:
                return
            del self._records[user_id]


def _seconds(left: timedelta) -> int:
    return math.ceil(left.total_seconds())
