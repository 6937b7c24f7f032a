"""The health report that agents read. Contract: node-types.md §8.11."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipelit.clock import Clock, format_instant
from pipelit.services.agent_lookup import find_workflow_principal
from pipelit.services.visibility import owners_in_scope
from pipelit.store import Store
from pipelit.store.errors import StoreError
from pipelit.store.queries import health as queries
from pipelit.store.queries.health import Owners

_TOLERATED_FAILURES = 5
_DAY = timedelta(hours=24)
_MAX_ERROR_CHARS = 200

Check = dict[str, Any]
Look = Callable[[Connection, Owners], Check]


class Issue(msgspec.Struct, frozen=True):
    """Something that is not as it should be."""

    severity: str
    check: str
    detail: str


class SystemHealth:
    """Looks at the platform on behalf of the owner of a workflow."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def report(self, workflow_id: int) -> Mapping[str, Any]:
        """Return the report. A check that fails itself says so; the others count."""
        now = self._clock.now()
        looks: dict[str, Look] = {
            "workers": _workers,
            "queues": _queues,
            "stuck_executions": partial(_stuck, now=now),
            "failed_executions": partial(_failures, since=now - _DAY),
            "scheduled_jobs": _jobs,
        }
        checks = {"store": await self._check_store()}
        for name, look in looks.items():
            checks[name] = await self._check(workflow_id, look)
        issues = list(find_issues(checks))
        return {
            "timestamp": format_instant(now),
            "summary": summarise(issues),
            "checks": checks,
            "issues": [msgspec.structs.asdict(issue) for issue in issues],
        }

    async def _check_store(self) -> Check:
        began = trio.current_time()
        check = await self._try(lambda conn: {"size_bytes": queries.database_bytes(conn)})
        if "error" in check:
            return check
        latency = round((trio.current_time() - began) * 1000, 1)
        return {"status": "ok", **check, "latency_ms": latency}

    async def _check(self, workflow_id: int, look: Look) -> Check:
        def scoped(conn: Connection) -> Check:
            owner = find_workflow_principal(conn, workflow_id)
            return look(conn, () if owner is None else owners_in_scope(owner))

        return await self._try(scoped)

    async def _try(self, query: Callable[[Connection], Check]) -> Check:
        try:
            return await self._store.read(query)
        except (StoreError, DBAPIError) as error:
            # The database's own words may name hosts and files; a model reads this.
            text = str(error) if isinstance(error, StoreError) else type(error).__name__
            return {"status": "error", "error": text}


def find_issues(checks: Mapping[str, Check]) -> Iterator[Issue]:
    """Yield what the checks found wrong. Pure."""
    store = checks["store"]
    if store["status"] == "error":
        yield Issue("critical", "store", f"Store unreachable: {store['error']}")
    if checks["workers"].get("count") == 0:
        yield Issue("critical", "workers", "No execution engine running")
    if stuck := checks["stuck_executions"].get("count"):
        detail = f"{stuck} execution(s) running longer than 15 minutes"
        yield Issue("critical", "stuck_executions", detail)
    failed = checks["failed_executions"].get("total_24h", 0)
    if failed > _TOLERATED_FAILURES:
        detail = f"{failed} failed execution(s) in the last 24 hours"
        yield Issue("warn", "failed_executions", detail)
    if dead := checks["scheduled_jobs"].get("dead_count"):
        yield Issue("warn", "scheduled_jobs", f"{dead} dead scheduled job(s)")


def summarise(issues: list[Issue]) -> str:
    """Return the word for everything together. Pure."""
    severities = {issue.severity for issue in issues}
    if "critical" in severities:
        return "critical"
    return "degraded" if severities else "healthy"


def _workers(conn: Connection, owners: Owners) -> Check:
    workers = queries.live_workers(conn, owners)
    return {
        "status": "ok" if workers else "critical",
        "count": len(workers),
        "workers": [{**msgspec.structs.asdict(worker), "state": "alive"} for worker in workers],
    }


def _queues(conn: Connection, owners: Owners) -> Check:
    return {"status": "ok", **queries.count_active(conn, owners)}


def _stuck(conn: Connection, owners: Owners, *, now: datetime) -> Check:
    count, oldest = queries.find_stuck(conn, owners, now=now)
    return {
        "status": "critical" if count else "ok",
        "count": count,
        "executions": [
            {**msgspec.structs.asdict(one), "started_at": format_instant(one.started_at)}
            for one in oldest
        ],
    }


def _failures(conn: Connection, owners: Owners, *, since: datetime) -> Check:
    by_error = queries.count_failures(conn, owners, since=since)
    total = sum(by_error.values())
    return {
        "status": "warn" if total > _TOLERATED_FAILURES else "ok",
        "total_24h": total,
        "by_error": [{"error": error, "count": count} for error, count in by_error.items()],
    }


def _jobs(conn: Connection, owners: Owners) -> Check:
    dead, erroring, jobs = queries.count_sick_jobs(conn, owners)
    return {
        "status": "warn" if dead else "ok",
        "dead_count": dead,
        "erroring_count": erroring,
        "jobs": [
            {**msgspec.structs.asdict(job), "last_error": job.last_error[:_MAX_ERROR_CHARS]}
            for job in jobs
        ],
    }
