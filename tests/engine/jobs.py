"""Scheduled jobs for tests of their rules."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from pipelit.engine.schedule import Job

NOON = datetime(2026, 2, 3, 12, tzinfo=UTC)

_JOB = Job(
    interval_seconds=60,
    cron=None,
    timezone=None,
    catch_up="one",
    total_repeats=0,
    max_retries=3,
    status="active",
    current_repeat=0,
    current_retry=0,
    run_count=0,
    error_count=0,
    last_error="",
    last_run_at=None,
    next_run_at=NOON,
)


def make_job(**values: Any) -> Job:
    """Return an active job that runs every minute and is due at noon, but for these *values*."""
    return msgspec.structs.replace(_JOB, **values)


def make_cron(cron: str, timezone: str = "UTC", **values: Any) -> Job:
    """Return an active cron job that is due at noon."""
    return make_job(interval_seconds=None, cron=cron, timezone=timezone, **values)
