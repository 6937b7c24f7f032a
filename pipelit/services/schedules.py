"""Scheduled jobs: made, listed, changed, paused, resumed, deleted. Contract: schedules.md."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.engine import schedule as rules
from pipelit.errors import BadRequest, Conflict, NotFound, ServerFault
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.principal import Principal
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedule_settings import merge_settings, new_settings
from pipelit.services.schedule_views import NominalTime, ScheduledJob, show_job
from pipelit.services.visibility import can_see_schedule, owners_in_scope
from pipelit.store import Store
from pipelit.store.queries import schedules as queries
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.schedules import ScheduleRow
from pipelit.store.queries.workflows import find_workflow_by_id

MAX_ACTIVE = 1000
"""Active jobs a user may have. Contract: README.md §8."""

NOT_FOUND = "Scheduled job not found."
LIMIT_REACHED = "Schedule limit reached."
START_FAILED = "Failed to start scheduled job."


def cannot(action: str, status: str) -> str:
    """Return the refusal to pause or resume a job with this status."""
    return f"Cannot {action} job with status '{status}'."


class SchedulesService:
    """What the contract's schedules section lets people do.

    Whoever changes a job makes this server the one that runs it.
    """

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, *, owner: Owner, actors: ScheduleActors
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._owner = owner
        self._actors = actors

    async def list_page(
        self,
        principal: Principal,
        *,
        status: str | None,
        workflow_id: int | None,
        limit: int,
        offset: int,
    ) -> tuple[list[ScheduledJob], int]:
        """Return a page of the jobs the caller may see, newest first, and how many there are."""
        rows, total = await self._store.read(
            lambda conn: queries.list_page(
                conn,
                owners_in_scope(principal),
                status=status,
                workflow_id=workflow_id,
                limit=limit,
                offset=offset,
            )
        )
        return [show_job(row) for row in rows], total

    async def get(self, principal: Principal, job_id: str) -> ScheduledJob:
        """Return one job.

        Raises:
            NotFound: there is none, or none the caller may see.
        """
        return show_job(await self._store.read(lambda conn: _require(conn, principal, job_id)))

    async def create(
        self, principal: Principal, fields: Mapping[str, Any], *, dedupe_key: str | None = None
    ) -> ScheduledJob:
        """Store an active job of the caller and start its actor.

        Args:
            dedupe_key: names a tool call; the same call again returns the first job.

        Raises:
            Invalid: interval, cron and timezone do not go together.
            NotFound: no such workflow, or none the caller may change.
            Conflict: the caller has as many active jobs as there may be.
            ServerFault: the actor could not start; nothing is stored.
        """
        now = self._clock.now()
        settings = new_settings(fields, now=now, where="body")
        row = new_job(
            settings, job_id=self._ids.uuid(), user_id=principal.user_id, owner=self._owner, now=now
        )

        def insert(conn: Connection) -> ScheduleRow:
            first = None if dedupe_key is None else queries.find_of_call(conn, dedupe_key)
            if first is not None:
                return first
            workflow = find_workflow_by_id(conn, row.workflow_id)
            if workflow is None or not can_see_schedule(principal, workflow.owner_id):
                raise NotFound(WORKFLOW_NOT_FOUND)
            require_room(conn, principal)
            queries.add(conn, row, dedupe_key=dedupe_key)
            return row

        made = await self._store.write(insert)
        if made.id == row.id and not await self._actors.start(row.id):
            await self._store.write(lambda conn: queries.remove(conn, [row.id], None))
            raise ServerFault(START_FAILED)
        return show_job(made)

    async def change(
        self, principal: Principal, job_id: str, fields: Mapping[str, Any]
    ) -> ScheduledJob:
        """Change the given settings; none given changes nothing.

        Raises:
            NotFound: as `get`.
            Invalid: the result has no valid interval, cron and timezone.
        """
        now = self._clock.now()

        def change(row: ScheduleRow) -> ScheduleRow:
            if not fields:
                return row
            return rules.change(row, merge_settings(row, fields, now=now), now=now)

        return await self._update(principal, job_id, change, now=now)

    async def pause(self, principal: Principal, job_id: str) -> ScheduledJob:
        """Pause an active job; a running execution continues.

        Raises:
            NotFound: as `get`.
            BadRequest: the job is not active.
        """
        return await self._update(principal, job_id, pause_job, now=self._clock.now())

    async def resume(self, principal: Principal, job_id: str) -> ScheduledJob:
        """Make a paused job active again, from now on.

        Raises:
            NotFound: as `get`.
            BadRequest: the job is not paused.
        """
        now = self._clock.now()

        def resume(row: ScheduleRow) -> ScheduleRow:
            if row.status != "paused":
                raise BadRequest(cannot("resume", row.status))
            return rules.begin(row, now=now)

        return await self._update(principal, job_id, resume, now=now)

    async def delete(self, principal: Principal, job_id: str) -> None:
        """Delete a job; a running execution continues.

        Raises:
            NotFound: as `get`.
        """
        if not await self._delete(principal, [job_id]):
            raise NotFound(NOT_FOUND)

    async def delete_many(self, principal: Principal, job_ids: Collection[str]) -> None:
        """Delete those of the jobs that the caller may delete, in one transaction."""
        if job_ids:
            await self._delete(principal, job_ids)

    async def preview(self, principal: Principal, job_id: str, count: int) -> list[NominalTime]:
        """Return the next nominal times of a job.

        Raises:
            NotFound: as `get`.
        """
        now = self._clock.now()

        def look_ahead(conn: Connection) -> list[NominalTime]:
            row = _require(conn, principal, job_id)
            return [
                NominalTime(nominal_time=at, local_time=rules.local_time(row, at))
                for at in rules.preview(row, now=now, count=count)
            ]

        return await self._store.read(look_ahead)

    async def _update(
        self,
        principal: Principal,
        job_id: str,
        change: Callable[[ScheduleRow], ScheduleRow],
        *,
        now: datetime,
    ) -> ScheduledJob:
        def update(conn: Connection) -> ScheduleRow:
            _require(conn, principal, job_id)
            old = lock_job(conn, job_id)
            new = change(old)
            return old if new is old else put_job(conn, new, owner=self._owner, now=now)

        row = await self._store.write(update)
        self._actors.wake([job_id])
        return show_job(row)

    async def _delete(self, principal: Principal, job_ids: Collection[str]) -> list[str]:
        owners = owners_in_scope(principal)
        gone = await self._store.write(lambda conn: queries.remove(conn, job_ids, owners))
        self._actors.wake(gone)
        return gone


def new_job(
    settings: Mapping[str, Any], *, job_id: str, user_id: int, owner: Owner, now: datetime
) -> ScheduleRow:
    """Return an active job with these settings, which include its name and workflow."""
    row = ScheduleRow(
        **settings,
        id=job_id,
        user_id=user_id,
        status="paused",
        current_repeat=0,
        current_retry=0,
        run_count=0,
        error_count=0,
        last_error="",
        last_run_at=None,
        next_run_at=None,
        created_at=now,
        updated_at=now,
        owner=owner.node_id,
        epoch=owner.epoch,
    )
    return rules.begin(row, now=now)


def lock_job(conn: Connection, job_id: str) -> ScheduleRow:
    """Return a job that nobody else changes before this transaction ends.

    Raises:
        NotFound: it was deleted just now.
    """
    row = queries.find_to_change(conn, job_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    return row


def put_job(conn: Connection, row: ScheduleRow, *, owner: Owner, now: datetime) -> ScheduleRow:
    """Write a job that somebody changed; this server runs it from now on."""
    put = msgspec.structs.replace(row, updated_at=now, owner=owner.node_id, epoch=owner.epoch)
    queries.save(conn, put)
    return put


def pause_job(row: ScheduleRow) -> ScheduleRow:
    """Pause a job.

    Raises:
        BadRequest: it is not active.
    """
    if row.status != "active":
        raise BadRequest(cannot("pause", row.status))
    return rules.pause(row)


def require_room(conn: Connection, principal: Principal) -> None:
    """Check that the caller may have one more active job.

    Raises:
        Conflict: there are as many as there may be.
    """
    if queries.count_active(conn, principal.user_id) >= MAX_ACTIVE:
        raise Conflict(LIMIT_REACHED)


def _require(conn: Connection, principal: Principal, job_id: str) -> ScheduleRow:
    found = queries.find_with_owner(conn, job_id)
    if found is None or not can_see_schedule(principal, found[1]):
        raise NotFound(NOT_FOUND)
    return found[0]
