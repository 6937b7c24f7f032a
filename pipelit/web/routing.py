"""Route declarations: everything a route promises, said once, read by dispatch and OpenAPI.

How to add routes (a module under `pipelit/web/routes/`, which exports a tuple `ROUTES`)::

    from pipelit.web.call import Call
    from pipelit.web.models import ListQuery, Name, RequestModel, Slug, changes
    from pipelit.web.responses import Page
    from pipelit.web.routing import Auth, Example, Refuses, Route

    class CreateThing(RequestModel):          # body: strict, unknown fields ignored
        name: Name                            # required, never null
        note: LongText = ""                   # optional, never null
        parent_id: Int64 | None = None        # "or null"

    class ThingQuery(ListQuery):              # limit and offset, and a filter
        status: Literal["open", "done"] | None = None

    async def create(call: Call[CreateThing]) -> ThingView:        # a frozen msgspec Struct
        return await call.service(ThingService).create(call.principal, name=call.body.name)

    async def change(call: Call[ChangeThing]) -> ThingView:
        fields = changes(call.body)           # PATCH: only what the client sent, nulls included
        return await call.service(ThingService).change(
            call.principal, call.path.number("thing_id"), fields)

    async def browse(call: Call[None, ThingQuery]) -> Page[ThingView]: ...

    ROUTES = (
        Route("POST", "/things/", create, auth=Auth.BEARER, section="things",
              summary="Create a thing.", body=CreateThing, status=201, response=ThingView,
              refuses=(Refuses(409, "Thing exists already.", "the name is taken"),)),
        Route("PATCH", "/things/{thing_id:int}/", change, auth=Auth.BEARER, section="things",
              summary="Change a thing.", body=ChangeThing, response=ThingView,
              refuses=(Refuses(404, "Thing not found.", "no such thing, or not visible"),)),
        Route("GET", "/things/", browse, auth=Auth.BEARER, section="things",
              summary="List things.", query=ThingQuery, response=Page[ThingView]),
    )

A handler returns a struct, dict, list or None (204), or a `Response` where status or headers
differ, and *raises* `pipelit.errors.Refusal` subclasses. It never checks token, role, media type,
size or schema, never runs work itself, and may be cancelled at any await when the client leaves.
Paths are written in the published form without `/api/v1`; the other slash form comes for free,
as do HEAD, OPTIONS, 405, and the refusals 401, 403 (admin), 413, 415, 400 (JSON), 422, 500, 503.
Path parameters: `{slug}` text, `{edge_id:int}` integer, `{rest:path}` text with slashes, last only.
`body_optional=True`: an empty body counts as `{}`. A body that is not declared is never read.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from pipelit.services.audit_log import Act
from pipelit.services.principal import Principal
from pipelit.web.call import Call, Services

Handler = Callable[[Call[Any, Any, Any]], Awaitable[object]]
Method = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
ParameterKind = Literal["text", "int", "path"]

_PARAMETER = re.compile(r"\{([a-z_]+)(?::(int|path))?\}")


class Auth(Enum):
    """Who may call a route."""

    NONE = "none"
    BEARER = "bearer"
    ADMIN = "admin"


class Knock(msgspec.Struct, frozen=True, kw_only=True):
    """A request at the door, as far as a `CustomAuth` may look."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    peer: str
    services: Services
    authenticate: Callable[[str], Awaitable[Principal]]
    """The server's check of an API key; raises `Unauthenticated`."""
    bearer: str | None
    """The key of a well-formed `Authorization: Bearer` header, else None."""


class CustomAuth(msgspec.Struct, frozen=True, kw_only=True):
    """A check of one route's own. `check` raises `Unauthenticated` or `Forbidden`."""

    name: str
    description: str
    is_optional: bool = False
    """Whether some get in without a key."""
    query: str = ""
    """The query parameter that may carry the key instead of the header; `""`: none."""
    check: Callable[[Knock], Awaitable[Principal | None]]


class Refuses(msgspec.Struct, frozen=True):
    """One declared refusal: status, the exact `detail`, and when it is given.

    A 422 without a `detail` lists its problems.
    """

    status: int
    detail: str
    when: str = ""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request and its answer for the documentation. `path` includes the query."""

    path: str
    body: object = None
    status: int = 200
    response: object = None


class Route:
    """One route. Immutable by convention; checked when it is made, so a mistake fails the start.

    `also` holds other ways to answer: {status: type of the answer, None for an empty one}.
    `act`: every call is an entry of the audit log, of this kind.
    `media` is the type of an answer with `status` that is no JSON, instead of `response` or beside.

    Raises:
        TypeError: a required part is missing, `auth` above all.
        ValueError: the template is malformed, or a body is declared on GET.
    """

    def __init__(
        self,
        method: Method,
        path: str,
        handler: Handler,
        *,
        auth: Auth | CustomAuth,
        section: str,
        summary: str,
        body: type[BaseModel] | None = None,
        body_optional: bool = False,
        query: type[BaseModel] | None = None,
        headers: type[BaseModel] | None = None,
        status: int = 200,
        response: object = None,
        also: Mapping[int, object] = MappingProxyType({}),
        media: str = "",
        act: Act | None = None,
        refuses: tuple[Refuses, ...] = (),
        examples: tuple[Example, ...] = (),
        description: str = "",
    ) -> None:
        if not isinstance(auth, Auth | CustomAuth):
            raise TypeError(f"{method} {path}: every route declares its auth")
        if body is not None and method == "GET":
            raise ValueError(f"{method} {path}: a GET takes no body")
        self.method = method
        self.path = path
        self.handler = handler
        self.auth = auth
        self.section = section
        self.summary = summary
        self.description = description
        self.body = body
        self.body_optional = body_optional
        self.query = query
        self.headers = headers
        self.status = status
        self.response = response
        self.also = also
        self.media = media
        self.act = act
        self.refuses = refuses
        self.examples = examples
        self.parameters = _parameters(path)

    def __repr__(self) -> str:
        return f"<Route {self.method} {self.path}>"


def _parameters(path: str) -> dict[str, ParameterKind]:
    """Read the parameters of a template: `{name: kind}` in order."""
    if not path.startswith("/"):
        raise ValueError(f"{path}: a path starts with a slash")
    kinds: dict[str, ParameterKind] = {}
    segments = path.strip("/").split("/")
    for index, segment in enumerate(segments):
        if "{" not in segment:
            continue
        match = _PARAMETER.fullmatch(segment)
        if match is None or match[1] in kinds:
            raise ValueError(f"{path}: bad parameter {segment}")
        kind: ParameterKind = match[2] or "text"  # type: ignore[assignment]  # the pattern's words
        if kind == "path" and index != len(segments) - 1:
            raise ValueError(f"{path}: only the last parameter may span slashes")
        kinds[match[1]] = kind
    return kinds
