"""Scheduled jobs as agents use them: only those of their owner's workflows.

Contract: node-types.md §8.10.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from pipelit.clock import format_instant
from pipelit.errors import BadRequest, Invalid, NotFound
from pipelit.nodes.json_tools import Acting
from pipelit.services.principal import Principal
from pipelit.services.schedule_settings import cron_problems, zone_problems
from pipelit.services.schedule_views import ScheduledJob
from pipelit.services.schedules import SchedulesService
from pipelit.services.tool_owner import load_acting
from pipelit.store import Store

NOT_FOUND = "Schedule not found"
_SHOWN = ("name", "status", "workflow_id", "interval_seconds", "cron")


class OwnersSchedules:
    """Implements `pipelit.nodes.scheduler_tools.Schedules`."""

    def __init__(self, store: Store, schedules: SchedulesService) -> None:
        self._store = store
        self._schedules = schedules

    async def create(self, acting: Acting, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store an active job; the same call again returns the first one."""
        _check_rhythm(fields)
        owner = await load_acting(self._store, acting)
        try:
            job = await self._schedules.create(owner, fields, dedupe_key=acting.key)
        except NotFound as error:
            raise NotFound(f"Workflow {fields['workflow_id']} not found") from error
        except Invalid as error:
            raise BadRequest("; ".join(p.removeprefix("body.") for p in error.problems)) from error
        return {"schedule_id": job.id, "name": job.name, "status": job.status}

    async def pause(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Pause an active job."""
        return await self._switch(acting, schedule_id, self._schedules.pause)

    async def resume(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Make a paused job active again."""
        return await self._switch(acting, schedule_id, self._schedules.resume)

    async def stop(self, acting: Acting, schedule_id: str) -> Mapping[str, Any]:
        """Delete a job."""
        owner = await load_acting(self._store, acting)
        try:
            await self._schedules.delete(owner, schedule_id)
        except NotFound as error:
            raise NotFound(NOT_FOUND) from error
        return {"schedule_id": schedule_id, "deleted": True}

    async def browse(
        self, acting: Acting, *, status: str | None, workflow_id: int | None, limit: int
    ) -> Mapping[str, Any]:
        """Return the jobs that match, newest first."""
        owner = await load_acting(self._store, acting)
        jobs, _ = await self._schedules.list_page(
            owner, status=status, workflow_id=workflow_id, limit=limit, offset=0
        )
        return {"results": [_show(job) for job in jobs]}

    async def _switch(
        self,
        acting: Acting,
        schedule_id: str,
        switch: Callable[[Principal, str], Awaitable[ScheduledJob]],
    ) -> Mapping[str, Any]:
        owner = await load_acting(self._store, acting)
        try:
            job = await switch(owner, schedule_id)
        except NotFound as error:
            raise NotFound(NOT_FOUND) from error
        return {"schedule_id": job.id, "status": job.status}


def _check_rhythm(fields: Mapping[str, Any]) -> None:
    cron, zone = fields.get("cron"), fields.get("timezone")
    problems = [f"cron: {problem}" for problem in (cron_problems(cron) if cron is not None else ())]
    if zone is not None:
        problems += (f"timezone: {problem}" for problem in zone_problems(zone))
    if problems:
        raise BadRequest("; ".join(problems))


def _show(job: ScheduledJob) -> dict[str, Any]:
    told = msgspec.structs.asdict(job)
    return {
        "schedule_id": job.id,
        **{name: told[name] for name in _SHOWN},
        "next_run_at": None if job.next_run_at is None else format_instant(job.next_run_at),
        "run_count": job.run_count,
        "error_count": job.error_count,
    }
