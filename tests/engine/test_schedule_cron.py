"""Cron expressions and the written rule for hours that a zone skips or repeats."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelit.engine.cron import CronError, CronTimes, find_zone, parse_cron

MINUTE = timedelta(minutes=1)
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight, southern summer
    "Africa/Casablanca",  # four changes around Ramadan
    "America/Havana",  # midnight is skipped, and comes twice
    "Asia/Kolkata",  # none
)
# The eves of the days in 2026 on which these zones change their offset, and one more.
EVES = ((2, 14), (3, 7), (3, 21), (3, 28), (4, 3), (9, 5), (10, 2), (10, 24), (10, 31), (6, 10))


def times(cron: str, zone: str, start: datetime, count: int) -> list[str]:
    """Return matches after *start*, as UTC text."""
    found = find_zone(zone)
    assert found is not None
    rhythm, at, out = CronTimes(parse_cron(cron), found), start, []
    for _ in range(count):
        at = rhythm.after(at)
        out.append(at.strftime("%m-%d %H:%M"))
    return out


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}+00:00")


@pytest.mark.parametrize(
    ("cron", "zone", "start", "expected"),
    [
        # The section's own example.
        ("30 2 * * *", "Europe/Berlin", "03-28T12:00", ["03-29 01:00", "03-30 00:30"]),
        ("30 2 * * *", "Europe/Berlin", "10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        # Several times of one gap, and a regular time at its end, are one run.
        ("*/20 2,3 * * *", "Europe/Berlin", "03-28T12:00", ["03-29 01:00", "03-29 01:20"]),
        # From between the two occurrences the repeated hour is over.
        ("*/20 2 * * *", "Europe/Berlin", "10-25T00:40", ["10-26 01:00", "10-26 01:20"]),
        ("30 2 * * *", "Europe/Berlin", "10-25T01:00", ["10-26 01:30"]),
        # Hour `*` follows real time.
        (
            "15 * * * *",
            "Europe/Berlin",
            "03-29T00:00",
            ["03-29 00:15", "03-29 01:15", "03-29 02:15"],
        ),
        (
            "15 * * * *",
            "Europe/Berlin",
            "10-25T00:00",
            ["10-25 00:15", "10-25 01:15", "10-25 02:15"],
        ),
        # A restricted minute in hour `*` does not hide the second occurrence of an earlier one.
        ("50,10 * * * *", "Europe/Berlin", "10-25T00:45", ["10-25 00:50", "10-25 01:10"]),
        # Midnight is skipped in Havana, and the half hour before two in Lord Howe.
        ("0 0 * * *", "America/Havana", "03-07T12:00", ["03-08 05:00", "03-09 04:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "10-03T00:00", ["10-03 15:30", "10-04 15:15"]),
        # Every four years, also from a year without the day.
        ("0 12 29 2 *", "UTC", "03-01T00:00", ["02-29 12:00", "02-29 12:00"]),
        # Both days restricted: either one is enough. One starts with `*`: both have to match.
        ("0 0 13 * FRI", "UTC", "02-12T12:00", ["02-13 00:00", "02-20 00:00"]),
        ("0 0 */10 * MON", "UTC", "05-01T00:00", ["05-11 00:00", "06-01 00:00"]),
    ],
)
def test_the_written_rule(cron: str, zone: str, start: str, expected: list[str]) -> None:
    """Gaps run once at their end, repeated times once at the first, rhythms in real time."""
    assert expected == times(cron, zone, at(start), len(expected))


@pytest.mark.parametrize(
    ("cron", "problems"),
    [
        ("", ("must have 5 fields",)),
        ("@daily", ("must have 5 fields",)),
        ("* * * * * *", ("must have 5 fields",)),
        ("61 * * * *", ("invalid minute '61'",)),
        ("* 24 * * *", ("invalid hour '24'",)),
        ("* * 0 * *", ("invalid day of month '0'",)),
        ("* * L * *", ("invalid day of month 'L'",)),
        ("* * * 13 *", ("invalid month '13'",)),
        ("* * * JANUARY *", ("invalid month 'JANUARY'",)),
        ("* * * * 8", ("invalid day of week '8'",)),
        ("* * * * MON#1", ("invalid day of week 'MON#1'",)),
        ("5-1 * * * *", ("invalid minute '5-1'",)),
        ("*/0 * * * *", ("invalid minute '*/0'",)),
        ("1,,2 * * * *", ("invalid minute '1,,2'",)),
        ("? -1 +1 1.5 ٣", None),
        ("MON * * * *", ("invalid minute 'MON'",)),
        ("60 24 * * 9", ("invalid minute '60'", "invalid hour '24'", "invalid day of week '9'")),
    ],
)
def test_bad_fields_are_named(cron: str, problems: tuple[str, ...] | None) -> None:
    """Each bad field is one problem; the fields' number comes first."""
    with pytest.raises(CronError) as error:
        parse_cron(cron)

    if problems is None:
        assert len(error.value.problems) == 5
    else:
        assert problems == error.value.problems


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("0 0 * jan,Dec Sun", "0 0 * 1,12 0"),
        ("0 0 * * 7", "0 0 * * SUN"),
        ("0 0 * * 5-7", "0 0 * * FRI-SUN"),
        ("10/20 * * * *", "10-59/20 * * * *"),
        (" 5\t4  * * * ", "5 4 * * *"),
        ("0-10/5,7 * * * *", "0,5,7,10 * * * *"),
        ("05 * * * *", "5 * * * *"),
    ],
)
def test_ways_to_write_the_same(written: str, same: str) -> None:
    """Names in any case, 7 for Sunday, steps from a value to the end, blanks."""
    assert parse_cron(same) == parse_cron(written)


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Base", "europe/berlin", "Europe", "../UTC", "right/UTC", "zone.tab", "a" * 99],
)
def test_only_zones_are_zones(name: str) -> None:
    """Files and directories beside the zones, and other spellings, are none."""
    assert find_zone(name) is None


# Properties: a slow reading of the rule, minute by minute, over cronsim's reading of the fields.


def field(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    # cronsim reads `5-5/2` as `5/2`, so ranges have two values at least.
    pairs = st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1])
    ranges = pairs.map(lambda pair: "{}-{}".format(*sorted(pair)))
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, 12)).map(
        "{0[0]}/{0[1]}".format
    )
    item = st.one_of(numbers.map(str), ranges, steps)
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


CRONS = st.tuples(
    field(0, 59),
    st.one_of(st.just("*"), field(0, 4), field(22, 23), field(0, 23)),
    st.one_of(st.just("*"), field(1, 28)),
    st.just("*"),
    st.one_of(st.just("*"), field(0, 6)),
).map(" ".join)


def slowly(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the matches in (start, end] by looking at every minute there is."""
    fields = CronSim(cron, datetime(2026, 1, 1))
    found = find_zone(zone)
    assert found is not None

    def matches(local: datetime) -> bool:
        return (
            local.minute in fields.minutes
            and local.hour in fields.hours
            and local.month in fields.months
            and fields.match_day(local.date())
        )

    minutes = takewhile(lambda t: t <= end + 90 * MINUTE, _minutes(start - 180 * MINUTE))
    instants = [(t, t.astimezone(found).replace(tzinfo=None, fold=0)) for t in minutes]
    if cron.split()[1] == "*":
        hits = {t for t, local in instants if matches(local)}
    else:
        hits, before, seen = set(), instants[0][1] - MINUTE, set()
        for t, local in instants:
            skipped = _between(before, local)
            if (local not in seen and matches(local)) or any(map(matches, skipped)):
                hits.add(t)
            seen.update([local, *skipped])
            before = local
    return sorted(t for t in hits if start < t <= end)


def _minutes(start: datetime) -> Iterator[datetime]:
    while True:
        yield start
        start += MINUTE


def _between(before: datetime, local: datetime) -> list[datetime]:
    return list(takewhile(lambda t: t < local, _minutes(before + MINUTE)))


@settings(max_examples=40, deadline=None)
@given(cron=CRONS, zone=st.sampled_from(ZONES), eve=st.sampled_from(EVES))
@example(cron="*/20 0-3 * * *", zone="America/Havana", eve=(10, 31))
@example(cron="* * * * *", zone="Australia/Lord_Howe", eve=(4, 3))
def test_every_minute_around_a_change_agrees(cron: str, zone: str, eve: tuple[int, int]) -> None:
    """Looking minute by minute around a change of offset finds the same instants."""
    start = datetime(2026, *eve, tzinfo=UTC)
    end = start + timedelta(days=2)
    found = find_zone(zone)
    assert found is not None
    rhythm = CronTimes(parse_cron(cron), found)

    matches, instant = [], start
    while True:
        try:
            instant = rhythm.after(instant)
        except CronError:
            break
        if instant > end:
            break
        matches.append(instant)

    assert slowly(cron, zone, start, end) == matches


@settings(max_examples=60, deadline=None)
@given(cron=CRONS, zone=st.sampled_from(ZONES), seconds=st.integers(0, 366 * 86_400))
def test_the_next_time_does_not_depend_on_where_one_looks_from(
    cron: str, zone: str, seconds: int
) -> None:
    """Any instant before the next match and after the last leads to the same one."""
    found = find_zone(zone)
    assert found is not None
    rhythm = CronTimes(parse_cron(cron), found)
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    first = rhythm.after(start)

    assert start < first
    assert first == rhythm.after(start + (first - start) / 2)
    assert first == rhythm.after(first - timedelta(microseconds=1))
