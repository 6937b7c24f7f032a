"""The health report over a real store: each check, whose rows count, and the word for all."""

from datetime import timedelta

import pytest
from sqlalchemy import insert

from pipelit.services.system_health import Issue, SystemHealth, find_issues, summarise
from pipelit.store import Store
from pipelit.store.queries.servers import register_server
from pipelit.store.schema import executions, schedules, users, workflows
from tests.services.conftest import HandClock

ADMINS, BOBS = 1, 2
"""Workflows: the first is an admin's, the second somebody else's."""


@pytest.fixture
async def health(store: Store, clock: HandClock) -> SystemHealth:
    people = [
        {"id": 1, "username": "ada", "role": "admin", "created_at": clock.now()},
        {"id": 2, "username": "bob", "role": "normal", "created_at": clock.now()},
    ]
    made = [
        {
            "id": n,
            "name": f"w{n}",
            "slug": f"w{n}",
            "owner_id": n,
            "created_at": clock.now(),
            "updated_at": clock.now(),
        }
        for n in (ADMINS, BOBS)
    ]

    def fill(conn):
        conn.execute(insert(users), people)
        conn.execute(insert(workflows), made)
        register_server(conn, "node-1")

    await store.write(fill)
    return SystemHealth(store, clock)


class Rows:
    """Adds executions and jobs to the store."""

    def __init__(self, store, clock):
        self._store = store
        self._clock = clock
        self._count = 0

    async def execution(self, status, workflow_id=ADMINS, **more):
        self._count += 1
        now = self._clock.now()
        row = {
            "id": f"e{self._count}",
            "created_seq": self._count,
            "workflow_id": workflow_id,
            "thread_id": "t",
            "status": status,
            "source": "manual",
            "trigger": {},
            "limit_seconds": 60,
            "created_at": now,
            "started_at": now,
            "last_activity_at": now,
            **more,
        }
        await self._store.write(lambda conn: conn.execute(insert(executions), [row]).rowcount)

    async def job(self, status, workflow_id=ADMINS, **more):
        self._count += 1
        now = self._clock.now()
        row = {
            "id": f"j{self._count}",
            "name": f"job {self._count}",
            "workflow_id": workflow_id,
            "interval_seconds": 60,
            "status": status,
            "next_run_at": now if status == "active" else None,
            "created_at": now,
            "updated_at": now,
            **more,
        }
        await self._store.write(lambda conn: conn.execute(insert(schedules), [row]).rowcount)


@pytest.fixture
def rows(store: Store, clock: HandClock) -> Rows:
    return Rows(store, clock)


async def test_a_quiet_platform_is_healthy(health, clock):
    """Every check is there, and no issue."""
    report = await health.report(ADMINS)

    assert report["timestamp"] == "2026-03-02T09:00:00"
    assert (report["summary"], report["issues"]) == ("healthy", [])
    checks = report["checks"]
    assert checks["store"]["status"] == "ok"
    assert checks["store"]["size_bytes"] > 0
    assert checks["store"]["latency_ms"] >= 0
    assert checks["workers"] == {
        "status": "ok",
        "count": 1,
        "workers": [{"name": "node-1", "state": "alive", "running_executions": 0}],
    }
    assert checks["queues"] == {"status": "ok", "pending": 0, "running": 0, "interrupted": 0}
    assert checks["stuck_executions"] == {"status": "ok", "count": 0, "executions": []}
    assert checks["failed_executions"] == {"status": "ok", "total_24h": 0, "by_error": []}
    assert checks["scheduled_jobs"] == {
        "status": "ok",
        "dead_count": 0,
        "erroring_count": 0,
        "jobs": [],
    }


async def test_executions_are_counted_by_status_and_server(health, rows):
    """Terminal ones are in no queue."""
    await rows.execution("running", owner="node-1", epoch=1)
    for status in ("pending", "pending", "interrupted", "completed"):
        await rows.execution(status)

    checks = (await health.report(ADMINS))["checks"]

    assert checks["queues"] == {"status": "ok", "pending": 2, "running": 1, "interrupted": 1}
    assert checks["workers"]["workers"][0]["running_executions"] == 1


@pytest.mark.parametrize(
    ("limit", "active", "is_stuck"),
    [(60, 899, False), (60, 901, True), (1800, 901, False), (1800, 1801, True)],
)
async def test_stuck_is_longer_active_than_a_quarter_of_an_hour_and_the_limit(
    health, rows, clock, limit, active, is_stuck
):
    """Time of earlier stretches counts; that between them does not."""
    began = clock.now() - timedelta(days=1)
    resumed = clock.now() - timedelta(seconds=active - 100)
    await rows.execution(
        "running",
        limit_seconds=limit,
        started_at=began,
        resumed_at=resumed,
        active_us=100_000_000,
    )

    report = await health.report(ADMINS)

    check = report["checks"]["stuck_executions"]
    assert check["count"] == is_stuck
    if is_stuck:
        assert check["executions"] == [
            {"execution_id": "e1", "workflow_id": 1, "started_at": "2026-03-01T09:00:00"}
        ]
        assert report["summary"] == "critical"
        assert report["issues"] == [
            {
                "severity": "critical",
                "check": "stuck_executions",
                "detail": "1 execution(s) running longer than 15 minutes",
            }
        ]


async def test_many_failures_of_a_day_degrade(health, rows, clock):
    """More than five; older ones do not count; the commonest error comes first."""
    for _ in range(4):
        await rows.execution("failed", error_code="ConfigError", completed_at=clock.now())
    await rows.execution("failed", error_code="Odd", completed_at=clock.now())
    old = clock.now() - timedelta(hours=25)
    await rows.execution("failed", error_code="Old", completed_at=old)
    assert (await health.report(ADMINS))["summary"] == "healthy"

    await rows.execution("failed", error_code=None, completed_at=clock.now())
    report = await health.report(ADMINS)

    assert report["checks"]["failed_executions"] == {
        "status": "warn",
        "total_24h": 6,
        "by_error": [
            {"error": "ConfigError", "count": 4},
            {"error": "Odd", "count": 1},
            {"error": "unknown", "count": 1},
        ],
    }
    assert report["summary"] == "degraded"
    assert report["issues"][0]["detail"] == "6 failed execution(s) in the last 24 hours"


async def test_dead_jobs_degrade(health, rows):
    """Two dead jobs, nothing else: one warning. Jobs with errors are listed after them."""
    await rows.job("active", error_count=3, last_error="x" * 300)
    await rows.job("active")
    for _ in range(2):
        await rows.job("dead")

    report = await health.report(ADMINS)

    check = report["checks"]["scheduled_jobs"]
    assert (check["status"], check["dead_count"], check["erroring_count"]) == ("warn", 2, 1)
    assert [job["id"] for job in check["jobs"]] == ["j3", "j4", "j1"]
    assert len(check["jobs"][2]["last_error"]) == 200
    assert report["summary"] == "degraded"
    assert report["issues"] == [
        {"severity": "warn", "check": "scheduled_jobs", "detail": "2 dead scheduled job(s)"}
    ]


async def test_owners_see_only_their_own_unless_they_are_admins(health, rows):
    """Executions and jobs of others are not counted."""
    for owner in (ADMINS, ADMINS, BOBS):
        await rows.execution("pending", workflow_id=owner)
        await rows.job("dead", workflow_id=owner)

    seen = [(await health.report(w))["checks"] for w in (ADMINS, BOBS, 99)]

    assert [checks["queues"]["pending"] for checks in seen] == [3, 1, 0]
    assert [checks["scheduled_jobs"]["dead_count"] for checks in seen] == [3, 1, 0]


async def test_no_server_is_critical(store, clock):
    """Nobody runs executions."""
    report = await SystemHealth(store, clock).report(1)

    assert report["summary"] == "critical"
    assert report["issues"] == [
        {"severity": "critical", "check": "workers", "detail": "No execution engine running"}
    ]


async def test_a_check_that_fails_says_so_and_the_others_count(health, store):
    """One broken table is no broken report."""
    await store.write(lambda conn: conn.exec_driver_sql("DROP TABLE schedules").rowcount)

    report = await health.report(ADMINS)

    assert report["checks"]["scheduled_jobs"] == {"status": "error", "error": "OperationalError"}
    assert report["checks"]["queues"]["status"] == "ok"
    assert report["summary"] == "healthy"


def test_a_store_out_of_reach_is_critical():
    """Everything else is unknown then, and no issue."""
    error = {"status": "error", "error": "Storage is not available."}
    names = ("store", "workers", "stuck_executions", "failed_executions", "scheduled_jobs")

    (issue,) = find_issues(dict.fromkeys(names, error))

    assert issue == Issue("critical", "store", "Store unreachable: Storage is not available.")
    assert summarise([issue]) == "critical"
