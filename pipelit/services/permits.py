"""Remembers whose password was right a moment ago. Contract: auth.md, MFA: Two factors, State."""

from collections import OrderedDict
from datetime import datetime, timedelta

_LASTS = timedelta(seconds=300)


class Permits:
    """Lets a user who passed the password step try the second one, for 300 s. In memory.

    A permit holds for the password that was right, so changing the password voids it.
    """

    def __init__(self) -> None:
        # By user, in the order given: those that end first come first.
        self._given: OrderedDict[int, tuple[str, datetime]] = OrderedDict()

    def give(self, user_id: int, password_hash: str, now: datetime) -> None:
        """Note that the password of this hash was right at *now*."""
        while self._given:
            oldest, (_, given_at) = next(iter(self._given.items()))
            if given_at + _LASTS > now:
                break
            del self._given[oldest]
        self._given[user_id] = (password_hash, now)
        self._given.move_to_end(user_id)

    def holds(self, user_id: int, password_hash: str | None, now: datetime) -> bool:
        """Tell whether the user may try a code."""
        if user_id not in self._given:
            return False
        given_for, given_at = self._given[user_id]
        return given_for == password_hash and given_at + _LASTS > now

    def take(self, user_id: int) -> None:
        """End the permit: it was used."""
        self._given.pop(user_id, None)
