"""When a scheduled job runs and what its runs make of it: the rules alone, as pure functions.

A job is a value; each rule returns the job as it is afterwards. Nothing here knows a clock: *now*
is given, aware UTC. Contract: schedules.md, engine.md §26.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from pipelit.engine.cron import (
    HORIZON,
    CronError,
    CronTimes,
    find_zone,
    parse_cron,
)
from pipelit.engine.definition import NodeDef

Status = Literal["active", "paused", "done", "dead"]
CatchUp = Literal["one", "skip", "all"]
Outcome = Literal["completed", "failed", "cancelled"]

MAX_INTERVAL = 31_536_000
MAX_TIMEOUT = 86_400
MAX_MISSED = 100
"""Missed times that `all` makes up for; older ones are dropped."""
MAX_BACKOFF = 10
"""Times the interval that the wait after failures grows to."""

EXACTLY_ONE = "exactly one of interval_seconds, cron is allowed"
ONLY_WITH_CRON = "only allowed with cron"
NOT_A_ZONE = "must be an IANA time zone"


class Every(msgspec.Struct, frozen=True):
    """A fixed interval, counted from the last run."""

    interval: timedelta

    def after(self, instant: datetime) -> datetime:
        """Return the next time after *instant*."""
        return instant + self.interval


Rhythm: TypeAlias = Every | CronTimes


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules need of a scheduled job.

    Invariants: exactly one of `interval_seconds` and `cron` is set, `timezone` with `cron` only;
    `next_run_at` is set exactly when `status` is `active`.
    """

    interval_seconds: int | None
    cron: str | None
    timezone: str | None
    catch_up: CatchUp
    total_repeats: int
    max_retries: int
    status: Status
    current_repeat: int
    current_retry: int
    run_count: int
    error_count: int
    last_error: str
    last_run_at: datetime | None
    next_run_at: datetime | None

    @property
    def due_at(self) -> datetime:
        """The next nominal time of an active job."""
        if self.next_run_at is None:
            raise ValueError(f"a job that is {self.status} has no next time")
        return self.next_run_at


JobT = TypeVar("JobT", bound=Job)


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of missed times.

    `next_run_at`: the nominal time of the next tick, perhaps past. `until`: ticks go on at missed
    times up to here; None without any. `dropped`: some were too old to be made up for.
    """

    next_run_at: datetime
    until: datetime | None = None
    dropped: bool = False


def rhythm_of(job: Job) -> Rhythm:
    """Return when the job runs.

    Raises:
        CronError: the zone has left the server's database.
    """
    if job.interval_seconds is not None:
        return Every(timedelta(seconds=job.interval_seconds))
    return CronTimes(parse_cron(job.cron or ""), _zone(job.timezone))


def _zone(name: str | None) -> ZoneInfo:
    zone = find_zone(name or "UTC")
    if zone is None:
        raise CronError(NOT_A_ZONE)
    return zone


def next_time(job: Job, after: datetime) -> datetime:
    """Return the job's next time after an instant, as *Tick and outcome* defines it."""
    return rhythm_of(job).after(after)


# Rules of ticks


def fire(job: JobT, *, now: datetime, until: datetime | None = None) -> JobT:
    """Note a tick that was not skipped; the next time is provisional until its outcome.

    Args:
        until: the end of missed times that are being made up for; None when there are none.
    """
    upcoming = next_time(job, now)
    if until is not None and (missed := next_time(job, job.due_at)) <= until:
        upcoming = missed
    return msgspec.structs.replace(job, last_run_at=now, next_run_at=upcoming)


def skip(job: JobT, *, now: datetime) -> JobT:
    """Let the due time pass: the grid of an interval stays, a past time does not."""
    return msgspec.structs.replace(job, next_run_at=_first_on_grid(job, now, at_least=1))


def settle(job: JobT, outcome: Outcome, error: str, *, now: datetime, makes_up: bool) -> JobT:
    """Record how a run of the job ended.

    Args:
        error: the text of a failed run.
        makes_up: missed times are being made up for, so a failure does not move the next one.
    """
    if outcome == "failed":
        return _fail(job, error, now=now, makes_up=makes_up)
    done = msgspec.structs.replace(job, current_repeat=job.current_repeat + 1, current_retry=0)
    if outcome == "completed":
        done = msgspec.structs.replace(done, run_count=job.run_count + 1, last_error="")
    return stop_at_limit(done)


def _fail(job: JobT, error: str, *, now: datetime, makes_up: bool) -> JobT:
    failed = msgspec.structs.replace(job, error_count=job.error_count + 1, last_error=error)
    retry = job.current_retry + 1
    if job.status not in {"active", "paused"}:
        return failed
    if retry > job.max_retries:
        return msgspec.structs.replace(failed, status="dead", next_run_at=None)
    failed = msgspec.structs.replace(failed, current_retry=retry)
    if job.status == "paused" or makes_up:
        return failed
    return msgspec.structs.replace(failed, next_run_at=_retry_time(job, retry, now))


def _retry_time(job: Job, retry: int, now: datetime) -> datetime:
    if job.interval_seconds is None:
        return next_time(job, now)
    times = min(1 << min(retry - 1, MAX_BACKOFF), MAX_BACKOFF)
    return now + timedelta(seconds=job.interval_seconds) * times


def stop_at_limit(job: JobT) -> JobT:
    """End a job that has run as often as it should."""
    if job.status in {"active", "paused"} and 0 < job.total_repeats <= job.current_repeat:
        return msgspec.structs.replace(job, status="done", next_run_at=None)
    return job


# Rules of missed times


def find_missed(job: Job, now: datetime) -> Missed:
    """Decide, for an active job whose next time is past, which of its times are made up for.

    `one` ticks with the oldest, `skip` with none, `all` with each, of which the newest hundred.
    """
    due = job.due_at
    match job.catch_up:
        case "one":
            return Missed(next_run_at=due, until=due)
        case "skip":
            return Missed(next_run_at=_first_on_grid(job, now, at_least=0))
        case "all":
            newest = _newest_missed(job, now)
            return Missed(next_run_at=newest[0], until=newest[-1], dropped=newest[0] != due)


def _newest_missed(job: Job, now: datetime) -> list[datetime]:
    """Return the newest of the times from the due one to *now*, at most `MAX_MISSED`, ascending."""
    due = job.due_at
    if job.interval_seconds is not None:
        interval = timedelta(seconds=job.interval_seconds)
        last = (now - due) // interval
        first = max(0, last - MAX_MISSED + 1)
        return [due + interval * k for k in range(first, last + 1)]
    # Look back twice as far until there are enough: the age of the oldest does not matter.
    rhythm, back = rhythm_of(job), timedelta(hours=1)
    while True:
        found = [due] if now - back <= due else []
        at = rhythm.after(found[-1] if found else now - back)
        while at <= now:
            found.append(at)
            at = rhythm.after(at)
        if len(found) >= MAX_MISSED or now - back <= due:
            return found[-MAX_MISSED:]
        back *= 2


def _first_on_grid(job: Job, now: datetime, *, at_least: int) -> datetime:
    """Return the first of due time + k x interval, k ≥ *at_least*, that is not past.

    For cron jobs the first match after now.
    """
    if job.interval_seconds is None:
        return next_time(job, now)
    interval = timedelta(seconds=job.interval_seconds)
    past = -((job.due_at - now) // interval)
    return job.due_at + interval * max(at_least, past)


# Rules of what people do


def begin(job: JobT, *, now: datetime) -> JobT:
    """Make a job active from now on: a new one, or a paused one."""
    return msgspec.structs.replace(job, status="active", next_run_at=next_time(job, now))


def restart(job: JobT, *, now: datetime) -> JobT:
    """Begin a job that was `done` or `dead` anew."""
    fresh = msgspec.structs.replace(
        job, current_repeat=0, current_retry=0, run_count=0, error_count=0, last_error=""
    )
    return begin(fresh, now=now)


def pause(job: JobT) -> JobT:
    """Let an active job rest; its counters stay."""
    return msgspec.structs.replace(job, status="paused", next_run_at=None)


def change(old: Job, new: JobT, *, now: datetime) -> JobT:
    """Apply changed settings: *new* is *old* with other settings.

    A new interval counts from the next reschedule; another cron expression or zone, or a change
    between interval and cron, counts from now.
    """
    moved = (old.cron, old.timezone) != (new.cron, new.timezone)
    if new.status == "active" and moved:
        new = begin(new, now=now)
    return stop_at_limit(new)


def preview(job: Job, *, now: datetime, count: int) -> list[datetime]:
    """Return the next nominal times, if every run ends in success before the next."""
    if job.status not in {"active", "paused"}:
        return []
    if job.total_repeats:
        count = min(count, job.total_repeats - job.current_repeat)
    times: list[datetime] = []
    rhythm = rhythm_of(job)
    upcoming = job.due_at if job.status == "active" else rhythm.after(now)
    while len(times) < count:
        times.append(upcoming)
        upcoming = rhythm.after(upcoming)
    return times


def local_time(job: Job, instant: datetime) -> str:
    """Return an instant in the job's zone, ISO 8601 with offset; UTC for interval jobs."""
    zone = UTC if job.cron is None else _zone(job.timezone)
    return instant.astimezone(zone).isoformat()


# Rules of what may be asked for


def rhythm_problems(
    *, interval_seconds: object, cron: object, timezone: object
) -> list[tuple[str, str]]:
    """Say what is wrong with a combination: `(field, message)`; field "" is the whole."""
    problems = []
    if interval_seconds is None and cron is None:
        problems.append(("interval_seconds", "field required"))
    if interval_seconds is not None and cron is not None:
        problems.append(("", EXACTLY_ONE))
    if timezone is not None and cron is None:
        problems.append(("timezone", ONLY_WITH_CRON))
    return problems


def never_matches(cron: str, now: datetime) -> bool:
    """Whether a well-formed expression has no match in the next eight years."""
    local = now.replace(tzinfo=None)
    found = parse_cron(cron).first_local(local)
    return found is None or found > local + HORIZON


# Rules of starting


def choose_trigger(triggers: Sequence[NodeDef], named: str | None, job_id: str) -> NodeDef | None:
    """Return the node a tick starts from: the *named* one, or the best that accepts the job.

    Args:
        triggers: the `trigger_*` nodes of the job's workflow, by row id.
    """
    active = [node for node in triggers if node.config.get("is_active", True)]
    if named is not None:
        return next((node for node in active if node.node_id == named), None)
    accepting = [
        node
        for node in active
        if node.component_type == "trigger_schedule"
        and (node.config.get("trigger_config") or {}).get("scheduled_job_id") in {None, job_id}
    ]
    return max(accepting, key=lambda node: node.config.get("priority", 0), default=None)
