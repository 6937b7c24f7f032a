"""The rules of scheduled jobs: ticks, outcomes, missed times, what people do, previews."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine import schedule as rules
from pipelit.engine.definition import NodeDef
from pipelit.engine.schedule import Job, Outcome
from pipelit.engine.trigger import schedule_trigger
from tests.engine.jobs import NOON, make_cron, make_job

SECOND = timedelta(seconds=1)


def fail(job: Job, now: datetime = NOON, *, makes_up: bool = False) -> Job:
    return rules.settle(job, "failed", "boom", now=now, makes_up=makes_up)


def complete(job: Job, now: datetime = NOON) -> Job:
    return rules.settle(job, "completed", "", now=now, makes_up=False)


def test_a_tick_counts_the_next_time_from_now() -> None:
    """Late by a second, the next run is a second later too; a cron job keeps to its pattern."""
    now = NOON + SECOND

    fired, cron = rules.fire(make_job(), now=now), rules.fire(make_cron("*/5 * * * *"), now=now)

    assert (now, NOON + 61 * SECOND) == (fired.last_run_at, fired.next_run_at)
    assert cron.next_run_at == NOON + 300 * SECOND


def test_a_skipped_time_changes_only_the_next_one() -> None:
    """The grid of an interval stays; the next cron match is the first after now."""
    now = NOON + SECOND

    assert make_job(next_run_at=NOON + 60 * SECOND) == rules.skip(make_job(), now=now)
    assert rules.skip(make_job(), now=NOON + 130 * SECOND).next_run_at == NOON + 180 * SECOND
    assert rules.skip(make_cron("*/5 * * * *"), now=now).next_run_at == NOON + 300 * SECOND


def test_failures_back_off_and_kill() -> None:
    """The section's example: 60, 120, 240 s, dead at the fourth, error_count 4, retry 3."""
    job, waits = make_job(), []
    for _ in range(3):
        job = fail(job)
        waits.append((job.due_at - NOON).total_seconds())

    dead = fail(job)

    assert waits == [60, 120, 240]
    assert (
        dead.status,
        dead.next_run_at,
        dead.error_count,
        dead.current_retry,
    ) == ("dead", None, 4, 3)
    assert dead.last_error == "boom"


def test_the_back_off_ends_at_ten_intervals() -> None:
    """60, 120, 240, 480, 600, 600 … also after thousands of failures."""
    job, waits = make_job(max_retries=10_000), []
    for _ in range(6):
        job = fail(job)
        waits.append((job.due_at - NOON).total_seconds())
    many = fail(make_job(max_retries=10**18, current_retry=10**17, interval_seconds=31_536_000))

    assert waits == [60, 120, 240, 480, 600, 600]
    assert many.next_run_at == NOON + timedelta(days=3650)


def test_cron_jobs_do_not_back_off() -> None:
    """The next try is the first match after now."""
    job = make_cron("*/5 * * * *", current_retry=2)

    assert fail(job, NOON + SECOND).next_run_at == NOON + 300 * SECOND


def test_success_clears_failures() -> None:
    """Counters move, the provisional next time stays."""
    job = make_job(current_retry=2, error_count=2, last_error="boom", next_run_at=NOON + SECOND)

    done = complete(job)

    assert done == make_job(current_repeat=1, run_count=1, error_count=2, next_run_at=NOON + SECOND)


def test_a_cancelled_run_counts_as_a_repeat_only() -> None:
    """No counter of results moves, and the last error stays."""
    job = make_job(current_retry=2, last_error="boom", total_repeats=2)

    once = rules.settle(job, "cancelled", "", now=NOON, makes_up=False)
    twice = rules.settle(once, "cancelled", "", now=NOON, makes_up=False)

    assert make_job(current_repeat=1, last_error="boom", total_repeats=2) == once
    assert (
        twice.status,
        twice.next_run_at,
        twice.run_count,
        twice.error_count,
    ) == ("done", None, 0, 0)


def test_a_paused_job_records_outcomes_and_stays_at_rest() -> None:
    """It gets no next time; it may end as done or dead."""
    job = make_job(status="paused", next_run_at=None)

    assert _brief(complete(job)) == (1, "paused", None)
    assert _brief(fail(job)) == (0, "paused", None)
    assert _brief(fail(make_job(status="paused", max_retries=0))) == (0, "dead", None)


def _brief(job: Job) -> tuple[object, ...]:
    return job.run_count, job.status, job.next_run_at


def test_a_late_outcome_does_not_revive() -> None:
    """A job that is done or dead counts the run, no more."""
    dead = make_job(status="dead", next_run_at=None, current_retry=3, error_count=4)

    assert fail(dead) == make_job(
        status="dead", next_run_at=None, current_retry=3, error_count=5, last_error="boom"
    )
    assert complete(dead).status == "dead"


@given(
    outcomes=st.lists(st.sampled_from(["completed", "failed", "cancelled"]), max_size=30),
    total=st.integers(0, 5),
    retries=st.integers(0, 3),
    status=st.sampled_from(["active", "paused"]),
)
def test_active_is_the_same_as_having_a_next_time(
    outcomes: list[Outcome], total: int, retries: int, status: Any
) -> None:
    """Whatever happens, and the counters add up."""
    job = make_job(total_repeats=total, max_retries=retries, status=status)
    if status == "paused":
        job = rules.pause(job)
    for outcome in outcomes:
        job = rules.settle(job, outcome, "boom", now=NOON, makes_up=False)
        assert (job.status == "active") == (job.next_run_at is not None)
        assert job.current_retry <= retries

    assert outcomes.count("completed") == job.run_count
    assert outcomes.count("failed") == job.error_count
    assert len(outcomes) - job.error_count == job.current_repeat


# Missed times


def test_one_ticks_with_the_oldest_missed_time() -> None:
    """Then the next time after now."""
    now = NOON + timedelta(hours=5)
    job = make_job()

    missed = rules.find_missed(job, now)

    assert (missed.next_run_at, missed.until) == (NOON, NOON)
    assert now + 60 * SECOND == rules.fire(job, now=now, until=missed.until).next_run_at


@pytest.mark.parametrize(
    ("late", "next_in"), [(1, 60), (60, 60), (61, 120), (3600 * 24 + 1, 86460)]
)
def test_skip_goes_on_with_the_grid(late: int, next_in: int) -> None:
    """The first of due time + k x interval that is not past."""
    missed = rules.find_missed(make_job(catch_up="skip"), NOON + late * SECOND)

    assert (NOON + next_in * SECOND, None) == (missed.next_run_at, missed.until)


@pytest.mark.parametrize("job", [make_job(), make_cron("* * * * *")])
def test_all_makes_up_for_the_newest_hundred(job: Job) -> None:
    """Oldest first, the back-off left out; then the next time after now."""
    job = rules.change(job, make_job(**{**_settings(job), "catch_up": "all"}), now=NOON)
    now = NOON + timedelta(days=3, seconds=30)

    missed = rules.find_missed(job, now)
    ticks = []
    job = make_job(**{**_settings(job), "catch_up": "all", "next_run_at": missed.next_run_at})
    while job.due_at <= now:
        ticks.append(job.due_at)
        job = rules.fire(job, now=now, until=missed.until)
        job = fail(
            make_job(**{**_settings(job), "max_retries": 999}), now, makes_up=job.due_at <= now
        )

    last = now - 30 * SECOND
    assert [last - k * 60 * SECOND for k in range(99, -1, -1)] == ticks
    assert missed.dropped
    assert job.next_run_at in {now + 60 * SECOND * 10, now + 30 * SECOND}  # back-off, next match


def _settings(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__struct_fields__}


def test_all_drops_nothing_when_there_is_little() -> None:
    """Three missed days of a daily job are three ticks."""
    job = make_cron("0 12 * * *", catch_up="all")

    missed = rules.find_missed(job, NOON + timedelta(days=2, hours=1))

    assert (NOON, NOON + timedelta(days=2), False) == (
        missed.next_run_at,
        missed.until,
        missed.dropped,
    )


# What people do


def test_a_change_of_pattern_counts_from_now() -> None:
    """A new interval waits for the next reschedule; another pattern, zone or kind does not."""
    old, cron = make_job(), make_cron("0 9 * * *")
    nine = NOON + timedelta(hours=21)

    assert rules.change(old, make_job(interval_seconds=5), now=NOON).next_run_at == NOON
    assert rules.change(old, make_cron("0 9 * * *"), now=NOON).next_run_at == nine
    assert rules.change(cron, make_cron("0 9 * * *"), now=NOON).next_run_at == NOON
    berlin = rules.change(cron, make_cron("0 9 * * *", "Europe/Berlin"), now=NOON)
    assert berlin.next_run_at == nine - timedelta(hours=1)
    assert rules.change(cron, make_job(), now=NOON).next_run_at == NOON + 60 * SECOND


@pytest.mark.parametrize("status", ["active", "paused"])
@pytest.mark.parametrize(("total", "done"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_limit_that_is_reached_already_ends_the_job(status: Any, total: int, done: bool) -> None:
    """`total_repeats` of 1…current_repeat while active or paused."""
    old = make_job(status=status, current_repeat=3)

    new = rules.change(
        old, make_job(status=status, current_repeat=3, total_repeats=total), now=NOON
    )

    assert ("done" if done else status) == new.status


def test_a_restart_forgets_everything() -> None:
    """Counters and the last error; the next time is one interval away."""
    dead = make_job(status="dead", next_run_at=None, current_repeat=3, current_retry=1, run_count=2)

    assert make_job(next_run_at=NOON + 60 * SECOND) == rules.restart(dead, now=NOON)


# Previews


def test_a_preview_ends_where_the_repeats_do() -> None:
    """It starts with the next time, or with what a resume would set."""
    job = make_job(total_repeats=5, current_repeat=3)
    paused = rules.pause(make_job())

    assert rules.preview(job, now=NOON, count=100) == [NOON, NOON + 60 * SECOND]
    assert rules.preview(paused, now=NOON, count=1) == [NOON + 60 * SECOND]
    assert rules.preview(make_job(status="done", next_run_at=None), now=NOON, count=5) == []


def test_local_times_carry_their_offset() -> None:
    """That of the zone at that instant; UTC for intervals."""
    berlin = make_cron("30 2 * * *", "Europe/Berlin")
    spring = datetime.fromisoformat("2026-03-29T01:00:00+00:00")

    assert rules.local_time(berlin, spring) == "2026-03-29T03:00:00+02:00"
    assert rules.local_time(make_job(), NOON) == "2026-02-03T12:00:00+00:00"


# Starting


def _trigger(row: int, node_id: str, kind: str = "trigger_schedule", **config: Any) -> NodeDef:
    return NodeDef(id=row, node_id=node_id, component_type=kind, config=config)


@pytest.mark.parametrize(
    ("named", "expected"), [(None, "d"), ("b", "b"), ("off", None), ("chat", "chat"), ("x", None)]
)
def test_the_trigger_is_the_named_one_or_the_best_that_accepts(
    named: str | None, expected: str | None
) -> None:
    """Highest priority, then lowest id; another job's triggers are left out."""
    triggers = [
        _trigger(1, "chat", "trigger_chat", priority=9),
        _trigger(2, "off", is_active=False, priority=9),
        _trigger(3, "b", priority=1, trigger_config={}),
        _trigger(4, "c", priority=5, trigger_config={"scheduled_job_id": "other"}),
        _trigger(5, "d", priority=2, trigger_config={"scheduled_job_id": "job"}),
        _trigger(6, "e", priority=2),
    ]

    found = rules.choose_trigger(triggers, named, "job")

    assert expected == (found and found.node_id)


def test_the_trigger_object_of_a_tick() -> None:
    """The job's payload with its id, text taken from there; the rest as stored."""
    payload = {"scheduled_job_id": "j", "repeat_number": 2, "payload": {"text": "go", "a": 1}}

    assert schedule_trigger(payload) == {
        "scheduled_job_id": "j",
        "repeat_number": 2,
        "payload": {"text": "go", "a": 1, "scheduled_job_id": "j"},
        "text": "go",
        "source": "schedule",
    }
    assert schedule_trigger({**payload, "payload": {"text": 5}})["text"] == ""
