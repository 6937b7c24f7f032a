"""Scheduled jobs over HTTP. Contract: schedules.md.

Handlers only translate: the rules are `pipelit.services.schedules`'s.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from pipelit.engine.schedule import MAX_INTERVAL, MAX_TIMEOUT, rhythm_problems
from pipelit.services.canvas import WORKFLOW_NOT_FOUND
from pipelit.services.schedule_settings import cron_problems, zone_problems
from pipelit.services.schedule_views import NominalTime, ScheduledJob
from pipelit.services.schedules import (
    LIMIT_REACHED,
    NOT_FOUND,
    START_FAILED,
    SchedulesService,
    cannot,
)
from pipelit.web.call import Call
from pipelit.web.models import (
    BatchKeys,
    FreeObject,
    Int64,
    Integer,
    IntegerText,
    ListQuery,
    LongText,
    Name,
    QueryModel,
    RequestModel,
    changes,
    given,
    problem,
)
from pipelit.web.responses import Page
from pipelit.web.routing import Auth, Example, Refuses, Route


def _free_of(find: Callable[[str], tuple[str, ...]]) -> Callable[[str], str]:
    """Return a validator that reports everything *find* finds."""

    def check(text: str) -> str:
        found = [InitErrorDetails(type=problem(message), input=text) for message in find(text)]
        if found:
            raise ValidationError.from_exception_data("text", found, hide_input=True)
        return text

    return check


Interval = Annotated[int, Integer(1, MAX_INTERVAL)]
Cron = Annotated[str, AfterValidator(_free_of(cron_problems))]
Zone = Annotated[str, AfterValidator(_free_of(zone_problems))]
NotNegative = Annotated[int, Integer(0)]


class ChangeSchedule(RequestModel):
    """Settings to change. `interval_seconds`, `cron` and `timezone` are judged together."""

    name: Name = ""
    description: LongText = ""
    interval_seconds: Interval | None = None
    cron: Cron | None = None
    timezone: Zone | None = None
    catch_up: Literal["one", "skip", "all"] = "one"
    total_repeats: NotNegative = 0
    max_retries: NotNegative = 3
    timeout_seconds: Annotated[int, Integer(1, MAX_TIMEOUT)] = 600
    trigger_payload: FreeObject | None = None


class CreateSchedule(ChangeSchedule):
    """A new job: exactly one of `interval_seconds` and `cron`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [given("interval_seconds", "integer"), given("cron", "string")]}
    )

    name: Name
    workflow_id: Int64
    trigger_node_id: Annotated[str, Field(max_length=255)] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _check_rhythm(cls, sent: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Report what does not go together along with what is wrong by itself."""
        values = {name: sent.get(name) for name in ("interval_seconds", "cron", "timezone")}
        found = [
            InitErrorDetails(type=problem(message), loc=(field,) if field else (), input=sent)
            for field, message in rhythm_problems(**values)
        ]
        try:
            model = validate(sent)
        except ValidationError as error:
            found = [*map(_again, error.errors(include_url=False)), *found]
        if found:
            raise ValidationError.from_exception_data("CreateSchedule", found, hide_input=True)
        return model


def _again(error: ErrorDetails) -> InitErrorDetails:
    """Return an error in the form in which it can be raised once more."""
    own = error["type"] == "contract"
    return InitErrorDetails(
        type=problem(error["msg"]) if own else error["type"],
        loc=error["loc"],
        input=error["input"],
        ctx=error.get("ctx", {}),
    )


class ScheduleQuery(ListQuery):
    """Filters of the list."""

    status: Literal["active", "paused", "done", "dead"] | None = None
    workflow_id: Annotated[int, IntegerText()] | None = None


class PreviewQuery(QueryModel):
    """How far to look ahead."""

    count: Annotated[int, IntegerText(1, 100)] = 5


class DeleteSchedules(RequestModel):
    """Ids to delete."""

    schedule_ids: BatchKeys


async def browse(call: Call[None, ScheduleQuery]) -> Page[ScheduledJob]:
    """List jobs."""
    query = call.query
    items, total = await call.service(SchedulesService).list_page(
        call.principal,
        status=query.status,
        workflow_id=query.workflow_id,
        limit=query.limit,
        offset=query.offset,
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateSchedule]) -> ScheduledJob:
    """Create an active job."""
    return await call.service(SchedulesService).create(call.principal, changes(call.body))


async def get(call: Call) -> ScheduledJob:
    """Return one job."""
    return await call.service(SchedulesService).get(call.principal, call.path.text("job_id"))


async def preview(call: Call[None, PreviewQuery]) -> Page[NominalTime]:
    """Return the next nominal times."""
    times = await call.service(SchedulesService).preview(
        call.principal, call.path.text("job_id"), call.query.count
    )
    return Page(items=times, total=len(times))


async def change(call: Call[ChangeSchedule]) -> ScheduledJob:
    """Change settings."""
    return await call.service(SchedulesService).change(
        call.principal, call.path.text("job_id"), changes(call.body)
    )


async def delete(call: Call) -> None:
    """Delete one job."""
    await call.service(SchedulesService).delete(call.principal, call.path.text("job_id"))


async def pause(call: Call) -> ScheduledJob:
    """Pause an active job."""
    return await call.service(SchedulesService).pause(call.principal, call.path.text("job_id"))


async def resume(call: Call) -> ScheduledJob:
    """Resume a paused job."""
    return await call.service(SchedulesService).resume(call.principal, call.path.text("job_id"))


async def delete_many(call: Call[DeleteSchedules]) -> None:
    """Delete those of the jobs that the caller may delete."""
    await call.service(SchedulesService).delete_many(call.principal, call.body.schedule_ids)


_NO_JOB = Refuses(404, NOT_FOUND, "no such job, or not visible")
_ID = "c0a1f6de-90a5-4f0b-8d8e-64a7f5d2a911"
_SHOWN = {
    "id": _ID,
    "name": "Daily digest",
    "description": "",
    "workflow_id": 7,
    "trigger_node_id": None,
    "user_profile_id": 3,
    "interval_seconds": 86400,
    "cron": None,
    "timezone": None,
    "catch_up": "one",
    "total_repeats": 30,
    "max_retries": 3,
    "timeout_seconds": 600,
    "trigger_payload": {"scope": "eu"},
    "status": "active",
    "current_repeat": 0,
    "current_retry": 0,
    "last_run_at": None,
    "next_run_at": "2026-02-04T12:00:00",
    "run_count": 0,
    "error_count": 0,
    "last_error": "",
    "created_at": "2026-02-03T12:00:00",
    "updated_at": "2026-02-03T12:00:00",
}

ROUTES = (
    Route(
        "GET",
        "/schedules/",
        browse,
        auth=Auth.BEARER,
        section="schedules",
        summary="List scheduled jobs of workflows one may change, newest first.",
        query=ScheduleQuery,
        response=Page[ScheduledJob],
        examples=(Example(path="/api/v1/schedules/", response={"items": [_SHOWN], "total": 1}),),
    ),
    Route(
        "POST",
        "/schedules/",
        create,
        auth=Auth.BEARER,
        section="schedules",
        summary="Create a scheduled job; it is active at once.",
        body=CreateSchedule,
        status=201,
        response=ScheduledJob,
        refuses=(
            Refuses(404, WORKFLOW_NOT_FOUND, "no such workflow, or one the caller may not change"),
            Refuses(409, LIMIT_REACHED, "the caller has 1000 active jobs"),
            Refuses(500, START_FAILED, "its actor cannot start; nothing is stored"),
        ),
        examples=(
            Example(
                path="/api/v1/schedules/",
                body={
                    "name": "Daily digest",
                    "workflow_id": 7,
                    "interval_seconds": 86400,
                    "total_repeats": 30,
                    "trigger_payload": {"scope": "eu"},
                },
                status=201,
                response=_SHOWN,
            ),
        ),
    ),
    Route(
        "POST",
        "/schedules/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="schedules",
        summary="Delete several jobs; those the caller may not delete are skipped.",
        body=DeleteSchedules,
        status=204,
        examples=(
            Example(
                path="/api/v1/schedules/batch-delete/", body={"schedule_ids": [_ID]}, status=204
            ),
        ),
    ),
    Route(
        "GET",
        "/schedules/{job_id}/",
        get,
        auth=Auth.BEARER,
        section="schedules",
        summary="Return one scheduled job.",
        response=ScheduledJob,
        refuses=(_NO_JOB,),
        examples=(Example(path=f"/api/v1/schedules/{_ID}/", response=_SHOWN),),
    ),
    Route(
        "GET",
        "/schedules/{job_id}/preview/",
        preview,
        auth=Auth.BEARER,
        section="schedules",
        summary="List the next nominal times of a job.",
        query=PreviewQuery,
        response=Page[NominalTime],
        refuses=(_NO_JOB,),
        examples=(
            Example(
                path=f"/api/v1/schedules/{_ID}/preview/?count=1",
                response={
                    "items": [
                        {
                            "nominal_time": "2026-02-04T12:00:00",
                            "local_time": "2026-02-04T12:00:00+00:00",
                        }
                    ],
                    "total": 1,
                },
            ),
        ),
    ),
    Route(
        "PATCH",
        "/schedules/{job_id}/",
        change,
        auth=Auth.BEARER,
        section="schedules",
        summary="Change a job's settings.",
        description=(
            "A new interval counts from the next reschedule. A change of `cron` or `timezone`, or "
            "between interval and cron, sets `next_run_at` anew."
        ),
        body=ChangeSchedule,
        response=ScheduledJob,
        refuses=(_NO_JOB,),
        examples=(
            Example(
                path=f"/api/v1/schedules/{_ID}/",
                body={"name": "Digest"},
                response={**_SHOWN, "name": "Digest", "updated_at": "2026-02-03T12:05:00"},
            ),
        ),
    ),
    Route(
        "DELETE",
        "/schedules/{job_id}/",
        delete,
        auth=Auth.BEARER,
        section="schedules",
        summary="Delete a job; a running execution continues.",
        status=204,
        refuses=(_NO_JOB,),
        examples=(Example(path=f"/api/v1/schedules/{_ID}/", status=204),),
    ),
    Route(
        "POST",
        "/schedules/{job_id}/pause/",
        pause,
        auth=Auth.BEARER,
        section="schedules",
        summary="Pause an active job.",
        response=ScheduledJob,
        refuses=(_NO_JOB, Refuses(400, cannot("pause", "<status>"), "the job is not active")),
        examples=(
            Example(
                path=f"/api/v1/schedules/{_ID}/pause/",
                response={**_SHOWN, "status": "paused", "next_run_at": None},
            ),
        ),
    ),
    Route(
        "POST",
        "/schedules/{job_id}/resume/",
        resume,
        auth=Auth.BEARER,
        section="schedules",
        summary="Make a paused job active again.",
        response=ScheduledJob,
        refuses=(_NO_JOB, Refuses(400, cannot("resume", "<status>"), "the job is not paused")),
        examples=(Example(path=f"/api/v1/schedules/{_ID}/resume/", response=_SHOWN),),
    ),
)
