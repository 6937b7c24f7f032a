"""A year of a hundred schedules, over every change of offset of four zones and a long outage."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pipelit.engine import schedule as rules
from pipelit.engine.schedule import CatchUp, Job
from tests.engine.jobs import make_cron, make_job

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago")
RUN = timedelta(seconds=2)

# Three days that hold Berlin's change of offset.
DOWN = datetime(2026, 3, 27, 0, 0, 30, tzinfo=UTC)
UP = DOWN + timedelta(days=3)

# By hand: per zone 16 x 365 + 2 x 8760 + 6 x 52 + 1459, but Berlin's one o'clock of both new years
# is an end of the year; hidden are 4 x (16 x 3 + 2 x 72 + 6 + 12), and four of Berlin's, whose
# fourth day begins an hour early. `one` gives each of the hundred a tick back.
TOTALS = {"all": 100_523, "skip": 100_523 - 844, "one": 100_523 - 844 + 100}


def hundred(catch_up: CatchUp) -> list[Job]:
    """Return 25 per zone, many of them in gaps and repeats: daily, hourly, weekly, one interval."""
    jobs = []
    for zone in ZONES:
        daily = [f"{minute} {hour} * * *" for hour in (0, 1, 2, 3) for minute in (0, 10, 30, 45)]
        hourly = [f"{minute} * * * *" for minute in (5, 35)]
        weekly = [f"30 {hour} * * SUN" for hour in (0, 1, 2, 3, 4, 5)]
        jobs += [make_cron(cron, zone, catch_up=catch_up) for cron in daily + hourly + weekly]
        jobs.append(make_job(interval_seconds=21_600, catch_up=catch_up))
    return [rules.begin(job, now=START) for job in jobs]


def live(job: Job, down: datetime, up: datetime) -> list[datetime]:
    """Run a job for a year, down between two instants; return the nominal times of its ticks."""
    ticks, now, until = [], START, None
    while (now := max(now, job.due_at)) < END:
        if down <= now < up:
            now = up
            missed = rules.find_missed(job, now)
            job = msgspec.structs.replace(job, next_run_at=missed.next_run_at)
            until = missed.until
            continue
        ticks.append(job.due_at)
        job = rules.fire(job, now=now, until=until)
        if until is not None and job.due_at > until:
            until = None
        now += RUN
        job = rules.settle(job, "completed", "", now=now, makes_up=until is not None)
    assert len(ticks) == job.run_count == job.current_repeat
    return ticks


@cache
def in_local_terms(cron: str, timezone: str) -> tuple[int, int]:
    """Return how many ticks a year has and how many of them the outage hides.

    Counted by going through local dates: one run a day, at the first instant with a local time
    that is not before the one named. Hourly ones by going through UTC.
    """
    minute, hour, *_, weekday = cron.split()
    zone = ZoneInfo(timezone)
    if hour == "*":
        # Offsets are half hours.
        moments = [START + timedelta(minutes=m) for m in range(int(minute) % 30, 365 * 1440, 30)]
        found = [t for t in moments if t.astimezone(zone).minute == int(minute)]
    else:
        days = [datetime(2025, 12, 31) + timedelta(days=d) for d in range(368)]
        days = [day for day in days if weekday == "*" or day.isoweekday() == 7]
        found = [_first(day.replace(hour=int(hour), minute=int(minute)), zone) for day in days]
    found = [t for t in found if START < t < END]
    return len(found), sum(DOWN <= t < UP for t in found)


def _first(wanted: datetime, zone: ZoneInfo) -> datetime:
    at = (wanted.replace(tzinfo=zone, fold=0)).astimezone(UTC) - timedelta(hours=2)
    while at.astimezone(zone).replace(tzinfo=None) < wanted:
        at += timedelta(minutes=5)
    return at


@pytest.mark.slow
@pytest.mark.parametrize("catch_up", ["one", "skip", "all"])
def test_a_year_of_a_hundred_schedules(catch_up: CatchUp) -> None:
    """Each runs exactly as often as its zone's calendar and its policy say, no time twice."""
    total = 0
    for job in hundred(catch_up):
        ticks = live(job, DOWN, UP)

        assert sorted(set(ticks)) == ticks
        due, missed = (1459, 12) if job.cron is None else in_local_terms(job.cron, job.timezone)
        made_up = {"one": min(1, missed), "skip": 0, "all": missed}[catch_up]
        assert due - missed + made_up == len(ticks), (job.cron, job.timezone)
        total += len(ticks)
    assert TOTALS[catch_up] == total


def test_repeated_hours_are_counted_as_the_calendar_has_them() -> None:
    """Numbers that can be checked by hand: 365 days, 8760 hours, half an hour in Lord Howe."""
    never = (END, END)

    def count(cron: str, zone: str) -> int:
        return len(live(rules.begin(make_cron(cron, zone), now=START), *never))

    assert {count("30 2 * * *", zone) for zone in ZONES} == {365}
    assert {count("30 2 * * SUN", zone) for zone in ZONES} == {52}
    assert count("15 * * * *", "Europe/Berlin") == 8760
    assert count("15 * * * *", "Australia/Lord_Howe") == 8759
    assert count("45 * * * *", "Australia/Lord_Howe") == 8761
