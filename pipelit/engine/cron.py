"""Cron expressions: what they say, and which instants they name in a time zone.

A wall-clock pattern is matched on local time first; only then a zone maps local times to instants,
by the contract's rule for the hours that a change of offset skips or repeats.

Contract: schedules.md "Cron".
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

MAX_LENGTH = 100
"""Characters of an expression."""

HORIZON = timedelta(days=8 * 366)
"""An expression without a match in so much time counts as one that never matches."""

MUST_HAVE_FIELDS = "must have 5 fields"
NEVER_MATCHES = "never matches"

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
# 29 February on a given weekday may be 40 years away (around 2100).
_SEARCH = timedelta(days=41 * 366)
_ITEM = re.compile(
    r"(?:\*|(?P<low>[0-9]{1,9}|[A-Z]{3})(?:-(?P<high>[0-9]{1,9}|[A-Z]{3}))?)"
    r"(?:/(?P<step>[0-9]{1,9}))?",
    re.ASCII | re.IGNORECASE,
)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*", re.ASCII)
# Directories and files beside the zones: other rules for leap seconds, or no zone at all.
_NO_ZONES = frozenset({"posix", "right", "localtime", "posixrules", "Factory"})


class CronError(ValueError):
    """The text is not a cron expression. `problems`: everything that is wrong with it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    """Names of the values, the first standing for `low`."""


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A cron expression as sets of local times. `times`: minutes of the day, ascending."""

    times: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 = Sunday."""
    either_day: bool
    """Day of month and day of week are both restricted: one of them is enough."""
    every_hour: bool
    """The hour field is `*`: a rhythm in real time, not a time of day."""

    def first_local(self, start: datetime) -> datetime | None:
        """Return the first matching local time that is not before *start*; both naive.

        None when there is none for decades.
        """
        day, end = start.date(), start.date() + _SEARCH
        index = bisect_left(self.times, start.hour * 60 + start.minute)
        while day < end:
            if index < len(self.times) and self._has_day(day):
                hour, minute = divmod(self.times[index], 60)
                return datetime.combine(day, time(hour, minute))
            day += _DAY
            index = 0
        return None

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Pattern:
    """Read an expression of five fields. Remembered, for every tick of a job asks again.

    Raises:
        CronError: with one problem per bad field, as the contract words them.
    """
    fields = re.split(r"[ \t]+", text.strip(" \t"))
    if len(fields) != len(_FIELDS):
        raise CronError(MUST_HAVE_FIELDS)
    values = [_parse_field(field, part) for field, part in zip(_FIELDS, fields, strict=True)]
    bad = [
        f"invalid {field.name} '{part}'"
        for field, part, found in zip(_FIELDS, fields, values, strict=True)
        if not found
    ]
    if bad:
        raise CronError(*bad)
    minutes, hours, days, months, weekdays = values
    return Pattern(
        times=tuple(sorted(hour * 60 + minute for hour in hours for minute in minutes)),
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
        every_hour=fields[1] == "*",
    )


def _parse_field(field: _Field, text: str) -> frozenset[int]:
    """Return the values a field names; none at all when it is malformed."""
    values: set[int] = set()
    for item in text.split(","):
        found = _parse_item(field, item)
        if not found:
            return frozenset()
        values.update(found)
    return frozenset(values)


def _parse_item(field: _Field, text: str) -> range:
    match = _ITEM.fullmatch(text)
    if match is None:
        return range(0)
    low, high, step = (part and part.upper() for part in match.group("low", "high", "step"))
    first = field.low if low is None else _parse_value(field, low)
    if high is not None:
        last = _parse_value(field, high)
        if high == "SUN" and first > 0:
            last = 7  # a week may end with Sunday
    elif low is None or step is not None:
        last = field.high
    else:
        last = first
    if first < 0 or last < 0 or (step is not None and int(step) == 0):
        return range(0)
    return range(first, last + 1, int(step or 1))


def _parse_value(field: _Field, text: str) -> int:
    """Return what a number or name stands for; -1 for nothing."""
    if text in field.words:
        return field.low + field.words.index(text)
    return int(text) if text.isdigit() and field.low <= int(text) <= field.high else -1


def find_zone(name: str) -> ZoneInfo | None:
    """Return the IANA time zone *name*; None if there is none."""
    if not _ZONE.fullmatch(name) or name.partition("/")[0] in _NO_ZONES:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not zone data, a directory
        return None


class CronTimes(msgspec.Struct, frozen=True):
    """The instants that a pattern names in a zone."""

    pattern: Pattern
    zone: ZoneInfo

    def after(self, instant: datetime) -> datetime:
        """Return the first match after *instant*, aware UTC.

        Raises:
            CronError: there is none for decades.
        """
        matches = self._in_real_time if self.pattern.every_hour else self._at_times_of_day
        found = next(matches(instant), None)
        if found is None:
            raise CronError(NEVER_MATCHES)
        return found

    def _at_times_of_day(self, instant: datetime) -> Iterator[datetime]:
        """Times of a gap run once, at its end; repeated times run at their first occurrence.

        So the instants never fall while the local times rise: those up to *instant*'s are over.
        """
        local = instant.astimezone(self.zone).replace(tzinfo=None, fold=0)
        last = instant
        while (found := self.pattern.first_local(_next_minute(local))) is not None:
            local = found
            at = first_instant(local, self.zone)
            if at > last:
                last = at
                yield at

    def _in_real_time(self, instant: datetime) -> Iterator[datetime]:
        """Match each stretch of constant offset by itself: repeats run, gaps have no times."""
        at = _next_minute(instant.astimezone(UTC))
        end = at + _SEARCH
        while at < end:
            offset = _offset(at, self.zone)
            found = self.pattern.first_local(at.replace(tzinfo=None) + offset)
            if found is None:
                return
            match = (found - offset).replace(tzinfo=UTC)
            change = _next_change(at, match, self.zone)
            if change is None:
                yield match
                at = match + _MINUTE
            else:
                at = change


def first_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when a naive *local* time comes first, or when the gap it falls into ends."""
    early = local.replace(tzinfo=zone, fold=0)
    at = early.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None, fold=0) == local:
        return at
    # In a gap fold=0 counts with the offset before it, fold=1 with the one after: the change lies
    # between the two.
    change = _next_change(early.replace(fold=1).astimezone(UTC), at, zone)
    return at if change is None else change


def _next_minute(value: datetime) -> datetime:
    return value.replace(second=0, microsecond=0) + _MINUTE


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _next_change(start: datetime, end: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the first instant in (start, end] with another offset than *start*'s.

    No zone changes twice within a day, so looking once a day misses nothing.
    """
    offset = _offset(start, zone)
    while start < end:
        probe = min(start + _DAY, end)
        if _offset(probe, zone) != offset:
            return _bisect(start, probe, zone)
        start = probe
    return None


def _bisect(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first whole second with the offset of *after*; one change lies between."""
    offset = _offset(before, zone)
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle <= before:
            break
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after
