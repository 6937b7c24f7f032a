"""What the operator sees: `/system/…` below the API, `/metrics` at the root.

Contract: operations.md §2, §3.
"""

import hmac
from datetime import datetime
from typing import Annotated, Any

import msgspec

from pipelit.actors.runtime import ActorInfo, ErrorInfo
from pipelit.errors import Forbidden, Unauthenticated
from pipelit.services.audit_log import Act, AuditLog, Entry, Outcome
from pipelit.services.metrics import MetricsService
from pipelit.services.principal import Principal
from pipelit.services.system import SystemInfo, SystemService
from pipelit.web.auth import ADMIN_ONLY, MISSING_KEY
from pipelit.web.call import Call
from pipelit.web.models import MAX_PAGE, IntegerText, ListQuery, QueryModel
from pipelit.web.openapi import KEY_REFUSALS
from pipelit.web.place import is_here
from pipelit.web.responses import Page, RawResponse
from pipelit.web.routing import Auth, CustomAuth, Example, Knock, Refuses, Route

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ActorsQuery(ListQuery):
    """Which actors."""

    kind: str | None = None


class SupervisionQuery(QueryModel):
    """Which records."""

    since: Annotated[int, IntegerText(0)] = 0
    event: str | None = None
    kind: str | None = None
    actor: str | None = None
    limit: Annotated[int, IntegerText(0, MAX_PAGE)] = 50


class AuditQuery(ListQuery):
    """Which entries."""

    kind: Act | None = None
    user: str | None = None


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """One act that matters for security, or the refusal of one."""

    id: int
    created_at: datetime
    kind: str
    outcome: Outcome
    user_id: int | None
    username: str
    key_id: int | None
    peer: str
    request_id: str
    subject: dict[str, Any]


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """One actor."""

    path: str
    kind: str
    parent: str | None
    state: str
    incarnation: int
    restarts: int
    started_at: datetime | None
    mailbox_depth: int
    mailbox_capacity: int
    handling: str | None
    handling_ms: int | None
    messages_handled: int
    last_error: ErrorInfo | None
    detail: dict[str, Any]


class ActorDetail(ActorView, frozen=True, kw_only=True):
    """One actor and those directly below it."""

    children: list[ActorView]


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """One supervision record."""

    seq: int
    timestamp: float
    event: str
    actor: str
    kind: str
    parent: str | None
    incarnation: int
    reason: str | None
    error: ErrorInfo | None
    detail: dict[str, Any]


async def list_actors(call: Call[None, ActorsQuery]) -> Page[ActorView]:
    """Return the tree in depth-first order."""
    query = call.query
    found, total = call.service(SystemService).list_actors(
        kind=query.kind, limit=query.limit, offset=query.offset
    )
    return Page(items=[_view(info) for info in found], total=total)


async def show_actor(call: Call) -> ActorDetail:
    """Return one actor."""
    info = call.service(SystemService).show_actor(call.path.text("path"))
    fields = msgspec.structs.asdict(_view(info))
    return ActorDetail(**fields, children=[_view(child) for child in info.children])


async def list_records(call: Call[None, SupervisionQuery]) -> Page[dict[str, Any]]:
    """Return supervision records, oldest first."""
    query = call.query
    items, total = call.service(SystemService).list_records(
        query.since, event=query.event, kind=query.kind, actor=query.actor, limit=query.limit
    )
    return Page(items=items, total=total)


async def list_audit_entries(call: Call[None, AuditQuery]) -> Page[EntryView]:
    """Return entries of the audit log, newest first."""
    query = call.query
    found, total = await call.service(AuditLog).browse(
        kind=query.kind, username=query.user, limit=query.limit, offset=query.offset
    )
    return Page(items=[_show_entry(entry) for entry in found], total=total)


async def show_info(call: Call) -> SystemInfo:
    """Return the server in numbers."""
    return await call.service(SystemService).info()


async def metrics(call: Call) -> RawResponse:
    """Return the metrics as Prometheus text."""
    text = await call.service(MetricsService).render()
    return RawResponse(status=200, content=text, content_type=METRICS_TYPE)


async def admit_scraper(knock: Knock) -> Principal | None:
    """Let in this machine itself, the scraper's token, and administrators.

    A request that a proxy passed on does not come from this machine, wherever the proxy runs.
    """
    token = knock.services.get(MetricsService).token
    if token and knock.bearer and hmac.compare_digest(knock.bearer.encode(), token.encode()):
        return None
    if is_here(knock.peer, knock.headers):
        return None
    if knock.bearer is None:
        raise Unauthenticated(MISSING_KEY)
    principal = await knock.authenticate(knock.bearer)
    if not principal.is_admin:
        raise Forbidden(ADMIN_ONLY)
    return principal


def _view(info: ActorInfo) -> ActorView:
    fields = {name: getattr(info, name) for name in ActorView.__struct_fields__}
    return ActorView(**fields)


def _show_entry(entry: Entry) -> EntryView:
    return EntryView(**{name: getattr(entry, name) for name in EntryView.__struct_fields__})


_ACTOR = {
    "path": "/manager",
    "kind": "manager",
    "parent": "/",
    "state": "running",
    "incarnation": 1,
    "restarts": 0,
    "started_at": "2026-02-03T08:00:00.100000",
    "mailbox_depth": 0,
    "mailbox_capacity": 1000,
    "handling": None,
    "handling_ms": None,
    "messages_handled": 118,
    "last_error": None,
    "detail": {},
}
_RECORD = {
    "seq": 41,
    "timestamp": 1770109207.480221,
    "event": "actor_started",
    "actor": "/manager",
    "kind": "manager",
    "parent": "/",
    "incarnation": 1,
    "reason": None,
    "error": None,
    "detail": {},
}
_ENTRY = {
    "id": 118,
    "created_at": "2026-02-03T09:00:07.480221",
    "kind": "user_change",
    "outcome": "done",
    "user_id": 1,
    "username": "maria",
    "key_id": 4,
    "peer": "127.0.0.1",
    "request_id": "8f14e45fceea167a5a36dedd4bea2543",
    "subject": {"user_id": 2, "fields": ["role"], "role": "admin"},
}
_INFO = {
    "version": "0.1.0",
    "node_id": "5f0e9c1d",
    "epoch": 3,
    "started_at": "2026-02-03T08:00:00.100000",
    "uptime_s": 4211.5,
    "python": "3.11.7",
    "database": {"dialect": "sqlite", "version": "3.45.1"},
    "servers": [
        {
            "node_id": "5f0e9c1d",
            "epoch": 3,
            "lease_until": "2026-02-03T09:10:21.600000",
            "live": True,
        }
    ],
    "actors": {"manager": 1},
    "executions": {"completed": 118, "running": 2},
    "store": {"queue_depth": 0, "commits": 2048, "batch_p50": 1.0, "commit_ms_p99": 4.2},
    "loop_lag_ms_p99": 1.5,
    "stuck_executions": 0,
}

ROUTES = (
    Route(
        "GET", "/system/actors/", list_actors, auth=Auth.ADMIN, section="system",
        summary="List the actors of this server, the tree in depth-first order.",
        query=ActorsQuery, response=Page[ActorView],
        examples=(
            Example(path="/api/v1/system/actors/", response={"items": [_ACTOR], "total": 1}),
        ),
    ),
    Route(
        "GET", "/system/actors/{path:path}", show_actor, auth=Auth.ADMIN, section="system",
        summary="Show an actor and those below it.", response=ActorDetail,
        refuses=(Refuses(404, "Actor not found.", "nobody lives at the path"),),
        examples=(
            Example(path="/api/v1/system/actors/manager", response={**_ACTOR, "children": []}),
        ),
    ),
    Route(
        "GET", "/system/supervision/", list_records, auth=Auth.ADMIN, section="system",
        summary="List supervision records, oldest first.",
        query=SupervisionQuery, response=Page[RecordView],
        examples=(
            Example(
                path="/api/v1/system/supervision/?since=40",
                response={"items": [_RECORD], "total": 1},
            ),
        ),
    ),
    Route(
        "GET", "/system/audit/", list_audit_entries, auth=Auth.ADMIN, section="system",
        summary="List acts that matter for security, newest first.",
        query=AuditQuery, response=Page[EntryView],
        examples=(
            Example(
                path="/api/v1/system/audit/?kind=user_change",
                response={"items": [_ENTRY], "total": 1},
            ),
        ),
    ),
    Route(
        "GET", "/system/info/", show_info, auth=Auth.ADMIN, section="system",
        summary="Describe this server in numbers.", response=SystemInfo,
        examples=(Example(path="/api/v1/system/info/", response=_INFO),),
    ),
)  # fmt: skip

ROOT_ROUTES = (
    Route(
        "GET", "/metrics", metrics, section="system",
        summary="The metrics of this server as Prometheus text.", media="text/plain",
        auth=CustomAuth(
            name="metrics",
            description=(
                "From this machine without a key; else METRICS_TOKEN or an administrator's key."
            ),
            is_optional=True,
            check=admit_scraper,
        ),
        refuses=(*KEY_REFUSALS, Refuses(403, ADMIN_ONLY, "the key of somebody else")),
    ),
)  # fmt: skip
