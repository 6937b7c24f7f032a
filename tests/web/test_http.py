"""What every route gets from the mechanism, over a real socket. Contract: README.md §1–§5."""

from datetime import datetime, timedelta, timezone

import msgspec
import pytest
import trio

from pipelit.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from pipelit.store import CommitUncertain, ReadTimeout
from pipelit.web.app import WebOptions
from pipelit.web.call import Call, Services
from pipelit.web.encode import encode
from pipelit.web.models import Name, RequestModel
from pipelit.web.request import BodyInbox, Head
from pipelit.web.responses import Page, RawResponse, Response
from pipelit.web.routing import Auth, CustomAuth, Knock, Route
from tests.kit.web_server import ADA, make_app, serving

AS_ADA = {"Authorization": "Bearer ada-key"}
AS_BOB = {"Authorization": "Bearer bob-key"}
FLOAT_ZONE = timezone(timedelta(hours=2))


class Thing(RequestModel):
    name: Name


class Greeter:
    """A service."""

    def greet(self, name: str) -> str:
        return f"Hello {name}"


class View(msgspec.Struct):
    """A response."""

    id: int
    made_at: datetime
    gone_at: datetime | None = None


async def echo(call: Call[Thing]) -> dict[str, object]:
    return {"name": call.body.name, "who": call.caller and call.caller.username}


async def path_values(call: Call) -> dict[str, object]:
    return dict(call.path.values)


async def nothing(_: Call) -> None:
    """Answer 204."""


def route(method, path, handler=path_values, **more):
    more = {"auth": Auth.NONE, "section": "test", "summary": "Test.", **more}
    return Route(method, path, handler, **more)


def named(name):
    async def handler(call):
        return {"route": name, **call.path.values}

    return handler


ROUTES = [
    route("GET", "/things/", named("list")),
    route("POST", "/things/", echo, body=Thing, status=201, auth=Auth.BEARER),
    route("POST", "/open/", echo, body=Thing),
    route("GET", "/things/{thing_id:int}/", named("one")),
    route("DELETE", "/things/{thing_id:int}/", nothing, status=204),
    route("GET", "/things/special/", named("special")),
    route("POST", "/things/batch-delete/", nothing, status=204),
    route("GET", "/slugs/{slug}/nodes/{node_id}/", named("node")),
    route("GET", "/slugs/special/", named("special slug")),
    route("GET", "/tree/{path:path}", named("tree")),
    route("GET", "/tree/", named("root")),
    route("POST", "/admin/", echo, body=Thing, auth=Auth.ADMIN),
    route("POST", "/bare/", named("bare")),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/things/", {"route": "list"}),
        ("/things", {"route": "list"}),
        ("/things/5/", {"route": "one", "thing_id": 5}),
        ("/things/5", {"route": "one", "thing_id": 5}),
        ("/things/-5", {"route": "one", "thing_id": -5}),
        ("/things/special", {"route": "special"}),
        ("/slugs/a%2Fb/nodes/c%20d/", {"route": "node", "slug": "a/b", "node_id": "c d"}),
        ("/slugs/%C3%BC/nodes/%E2%82%AC", {"route": "node", "slug": "ü", "node_id": "€"}),
        ("/slugs/a+b/nodes/c", {"route": "node", "slug": "a+b", "node_id": "c"}),
        ("/tree/a/b/c/", {"route": "tree", "path": "a/b/c"}),
        ("/tree", {"route": "root"}),
    ],
)
async def test_paths_reach_their_route_without_a_redirect(path, expected):
    """Both slash forms, literals before parameters, segments decoded one by one."""
    async with serving(ROUTES) as server:
        answer = await server.client.get("/api/v1" + path)
        assert answer.status_code == 200
        assert answer.json() == expected


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/api/v1", "/api/v1/", "/api/v1/things//", "/api/v1//things", "/things",
     "/api/v1/things/5/6", "/api/v1/slugs//nodes/a", "/api/v1/slugs/special/nodes/a"],
)  # fmt: skip
async def test_unknown_paths_are_404(path):
    """Also before the token is looked at."""
    async with serving(ROUTES) as server:
        answer = await server.client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/things/", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/things/5/", "GET, HEAD, DELETE, OPTIONS"),
        ("DELETE", "/things/special", "GET, HEAD, OPTIONS"),
        ("GET", "/things/batch-delete/", "POST, OPTIONS"),
        ("HEAD", "/things/batch-delete/", "POST, OPTIONS"),
        ("BREW", "/things/", "GET, HEAD, POST, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_405_with_allow(method, path, allow):
    """A literal path never falls through to the parameter beside it."""
    async with serving(ROUTES) as server:
        answer = await server.client.request(method, "/api/v1" + path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == allow
        if method != "HEAD":
            assert answer.json() == {"detail": "Method Not Allowed"}


async def test_head_is_get_without_the_body():
    """Same status, same headers."""
    async with serving(ROUTES) as server:
        get = await server.client.get("/api/v1/things/")
        head = await server.client.head("/api/v1/things/")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "cache-control"):
            assert head.headers[name] == get.headers[name]


async def test_options_is_204_with_allow_and_needs_no_token():
    """CORS is off: no CORS header."""
    async with serving(ROUTES) as server:
        answer = await server.client.options("/api/v1/admin")
        assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_cors_when_on_allows_every_origin_but_no_credentials():
    """Preflight names the method and the headers; every answer names the origin."""
    options = WebOptions(cors_allow_all_origins=True)
    async with serving(ROUTES, options=options) as server:
        preflight = await server.client.options(
            "/api/v1/things/",
            headers={
                "Origin": "http://elsewhere",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
        answer = await server.client.get("/api/v1/nothing", headers={"Origin": "http://x"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_api_responses_are_not_cached_and_carry_a_request_id():
    """Also errors; the root has no caching rule."""
    async with serving(ROUTES, root=[route("GET", "/probe", named("probe"))]) as server:
        for path in ("/api/v1/things/", "/api/v1/nothing"):
            answer = await server.client.get(path)
            assert answer.headers["cache-control"] == "no-store"
            assert len(answer.headers["x-request-id"]) == 32
        assert "cache-control" not in (await server.client.get("/probe")).headers


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1_2.X", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False)],
)
async def test_a_good_request_id_is_the_callers(given, kept):
    """Anything else is replaced by a fresh one."""
    async with serving(ROUTES) as server:
        answer = await server.client.get("/api/v1/things/", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer  ada-key", "Basic ada-key", "ada-key", "Bearer nobody"],
)
async def test_without_a_good_key_401(header):
    """The scheme is followed by exactly one space."""
    headers = {} if header is None else {"Authorization": header}
    async with serving(ROUTES) as server:
        answer = await server.client.post("/api/v1/things/", headers=headers)
        assert answer.status_code == 401
        assert answer.json() == {"detail": "Invalid or missing API key."}
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_case_insensitive(scheme):
    """And the handler learns who asks."""
    async with serving(ROUTES) as server:
        answer = await server.client.post(
            "/api/v1/things/", json={"name": "n"}, headers={"Authorization": f"{scheme} ada-key"}
        )
        assert (answer.status_code, answer.json()) == (201, {"name": "n", "who": "ada"})


async def test_admin_routes_are_403_for_others_before_the_body_is_looked_at():
    """Role comes right after the token."""
    async with serving(ROUTES) as server:
        answer = await server.client.post("/api/v1/admin/", content=b"{", headers=AS_BOB)
        assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required."})
        answer = await server.client.post("/api/v1/admin/", json={"name": "n"}, headers=AS_ADA)
        assert answer.status_code == 200


async def test_the_order_of_checks():
    """Each request has every later mistake too; the earlier one answers."""
    large = {"Content-Type": "text/plain"}
    options = WebOptions(max_request_bytes=1024)
    async with serving(ROUTES, options=options) as server:

        async def status(path, content, headers):
            answer = await server.client.post(path, content=content, headers=headers)
            return answer.status_code

        too_much, few = b"{" * 2000, b"{"
        assert await status("/api/v1/nope/", too_much, large) == 404
        assert await status("/api/v1/things/5/", too_much, large) == 405
        assert await status("/api/v1/admin/", too_much, large) == 401
        assert await status("/api/v1/admin/", too_much, {**large, **AS_BOB}) == 403
        assert await status("/api/v1/admin/", too_much, {**large, **AS_ADA}) == 413
        assert await status("/api/v1/admin/", few, {**large, **AS_ADA}) == 415
        as_json = {"Content-Type": "application/json", **AS_ADA}
        assert await status("/api/v1/admin/", few, as_json) == 400
        assert await status("/api/v1/admin/", b"{}", as_json) == 422


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_the_limit_itself_is_not(chunked):
    """With and without an announced length; the connection serves the next request."""
    size = 1024 * 1024

    def content(total):
        body = b'{"name": "n"}'.ljust(total)
        if not chunked:
            return body

        async def pieces():
            for start in range(0, total, 65_536):
                yield body[start : start + 65_536]

        return pieces()

    headers = {"Content-Type": "application/json"}
    async with serving(ROUTES) as server:
        for total, status in ((size + 1, 413), (size, 200), (20 * size, 413), (100, 200)):
            answer = await server.client.post(
                "/api/v1/open/", content=content(total), headers=headers
            )
            assert answer.status_code == status
            if status == 413:
                assert answer.json() == {"detail": "Request body too large."}


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/problem+json", 200),
        ("application/vnd.api+json;v=1", 200),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("application/+json", 415),
        (None, 415),
    ],
)
async def test_media_types(media_type, status):
    """JSON in any dress."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    async with serving(ROUTES) as server:
        answer = await server.client.post(
            "/api/v1/open/", content=b'{"name": "n"}', headers=headers
        )
        assert answer.status_code == status


async def test_an_empty_body_needs_no_media_type():
    """It is a missing field, not a wrong type."""
    async with serving(ROUTES) as server:
        answer = await server.client.post("/api/v1/open/")
        assert answer.status_code == 422
        assert answer.json() == {"detail": {"validation_errors": ["body: field required"]}}


async def test_a_route_without_a_body_ignores_any_body():
    """Whatever it is, and however large."""
    async with serving(ROUTES) as server:
        for content in (b"\xff{", b"x" * 3_000_000):
            answer = await server.client.post("/api/v1/bare/", content=content)
            assert answer.json() == {"route": "bare"}


REFUSALS = [
    (BadRequest("no"), 400, {}),
    (Unauthenticated("Invalid credentials."), 401, {"www-authenticate": "Bearer"}),
    (Forbidden("no"), 403, {}),
    (NotFound("no"), 404, {}),
    (Conflict("no"), 409, {}),
    (Invalid("plain text"), 422, {}),
    (TooMany("no", retry_after=0), 429, {"retry-after": "1"}),
    (BadGateway("no"), 502, {}),
    (Unavailable("no", retry_after=7), 503, {"retry-after": "7"}),
    (ReadTimeout(), 503, {"retry-after": "1"}),
    (CommitUncertain("the connection broke"), 503, {"retry-after": "1"}),
    (ExceptionGroup("nursery", [NotFound("no")]), 404, {}),
]


@pytest.mark.parametrize(("error", "status", "headers"), REFUSALS)
async def test_refusals_become_statuses(error, status, headers):
    """With their own text as `detail`."""

    async def refuse(_):
        raise error

    async with serving([route("GET", "/x/", refuse)]) as server:
        answer = await server.client.get("/api/v1/x/")
        assert answer.status_code == status
        refusal = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        assert answer.json() == {"detail": refusal.detail}
        assert headers.items() <= dict(answer.headers).items()


async def test_a_bug_is_500_without_internals(capsys):
    """The traceback is in the log, with the request's id."""

    async def explode(_):
        raise RuntimeError("secret internals")

    async def unencodable(_):
        return {"x": object()}

    async def bottomless(_):
        value = []
        for _ in range(100_000):
            value = [value]
        return value

    routes = [
        route("GET", "/x/", explode),
        route("GET", "/y/", unencodable),
        route("GET", "/z/", bottomless),
    ]
    async with serving(routes) as server:
        for path in ("/api/v1/x/", "/api/v1/y/", "/api/v1/z/"):
            answer = await server.client.get(path, headers={"X-Request-ID": "trace-me"})
            assert answer.status_code == 500
            assert answer.json() == {"detail": "Internal server error."}
            assert answer.headers["x-request-id"] == "trace-me"
    logged = capsys.readouterr().out
    assert "secret internals" in logged
    assert "trace-me" in logged


async def test_a_stopping_server_refuses_api_requests_with_503():
    """Probes still answer."""
    stopping = trio.Event()
    probe = route("GET", "/probe", named("probe"))
    app = make_app([route("GET", "/x/", named("x"))], [probe], stopping=stopping)
    stopping.set()

    async def ask(path):
        head = Head(method="GET", raw_path=path, query={}, headers={}, peer="127.0.0.1")
        return await app.dispatcher.answer(head, BodyInbox(0))

    refused = await ask("/api/v1/x/")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert refused.content == b'{"detail":"Server is shutting down."}'
    assert (await ask("/probe")).status == 200
    assert (await ask("/api/v1/nothing")).status == 404


async def test_responses_encode_structs_pages_and_instants():
    """UTC without offset; a fraction only when it is not zero."""

    async def answer(_):
        moment = datetime(2025, 1, 15, 12, 30, tzinfo=FLOAT_ZONE)
        return Page(
            items=[View(1, moment), View(2, moment, moment.replace(microsecond=5))], total=9
        )

    async with serving([route("GET", "/x/", answer)]) as server:
        assert (await server.client.get("/api/v1/x/")).json() == {
            "items": [
                {"id": 1, "made_at": "2025-01-15T10:30:00", "gone_at": None},
                {
                    "id": 2,
                    "made_at": "2025-01-15T10:30:00",
                    "gone_at": "2025-01-15T10:30:00.000005",
                },
            ],
            "total": 9,
        }


async def test_204_has_neither_body_nor_content_type():
    """As HTTP wants it."""
    async with serving(ROUTES) as server:
        answer = await server.client.delete("/api/v1/things/5/")
        assert (answer.status_code, answer.content) == (204, b"")
        assert "content-type" not in answer.headers


async def test_a_handler_may_choose_status_headers_and_bytes():
    """For replayed answers, pages and metrics."""

    async def replayed(_):
        return Response(status=202, body={"a": 1}, headers={"Idempotent-Replayed": "true"})

    async def page(_):
        return RawResponse(status=200, content=b"<html>", content_type="text/html; charset=utf-8")

    routes = [route("GET", "/a/", replayed), route("GET", "/b/", page)]
    async with serving(routes) as server:
        answer = await server.client.get("/api/v1/a/")
        assert (answer.status_code, answer.json()) == (202, {"a": 1})
        assert answer.headers["idempotent-replayed"] == "true"
        answer = await server.client.get("/api/v1/b/")
        assert answer.content == b"<html>"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_handlers_ask_services_by_their_class():
    """The composition root passes them once."""

    async def greet(call: Call) -> dict[str, str]:
        return {"text": call.service(Greeter).greet(call.principal.username)}

    routes = [route("GET", "/x/", greet, auth=Auth.BEARER)]
    async with serving(routes, services=Services(Greeter())) as server:
        answer = await server.client.get("/api/v1/x/", headers=AS_BOB)
        assert answer.json() == {"text": "Hello bob"}


async def test_a_route_may_have_its_own_check():
    """It sees headers, query, peer and the server's check of keys."""
    seen: list[Knock] = []

    async def check(knock: Knock):
        seen.append(knock)
        if knock.query.get("api_key") != "sesame":
            raise Unauthenticated("Invalid or missing API key")
        return ADA

    auth = CustomAuth(name="sesame", description="An open door.", check=check)
    async with serving([route("POST", "/x/", echo, body=Thing, auth=auth)]) as server:
        answer = await server.client.post("/api/v1/x/", json={"name": "n"}, headers=AS_BOB)
        assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or missing API key")
        answer = await server.client.post("/api/v1/x/?api_key=sesame", json={"name": "n"})
        assert answer.json() == {"name": "n", "who": "ada"}
    assert (seen[0].bearer, seen[0].peer) == ("bob-key", "127.0.0.1")


async def test_a_repeated_parameter_counts_once_the_last():
    """And the raw query is there for those who compare it."""

    async def raw(call: Call) -> object:
        return call.raw_query

    async with serving([route("GET", "/x/", raw)]) as server:
        answer = await server.client.get("/api/v1/x/?a=1&a=2&b=%20&c=")
        assert answer.json() == {"a": "2", "b": " ", "c": ""}


async def test_every_answer_is_observed_with_its_template():
    """For metrics: never the path itself."""
    async with serving(ROUTES) as server:
        await server.client.get("/api/v1/things/5")
        await server.client.get("/secret-path")
        seen = [(path, method, status) for path, method, status, _ in server.observed]
        assert seen == [("/api/v1/things/{thing_id:int}/", "GET", 200), ("-", "GET", 404)]


async def test_a_client_that_leaves_cancels_its_handler():
    """Nothing goes on for nobody."""
    inside, cancelled = trio.Event(), trio.Event()

    async def wait(_):
        inside.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving([route("GET", "/x/", wait)]) as server:
        async with await server.connect() as stream:
            await stream.send_all(b"GET /api/v1/x/ HTTP/1.1\r\nHost: h\r\n\r\n")
            await inside.wait()
        with trio.fail_after(5):
            await cancelled.wait()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"auth": None}, TypeError),
        ({"path": "no-slash"}, ValueError),
        ({"path": "/a/{b"}, ValueError),
        ({"path": "/a/{b}/{b}"}, ValueError),
        ({"path": "/{rest:path}/a"}, ValueError),
        ({"body": Thing}, ValueError),
    ],
)
def test_a_bad_declaration_stops_the_start(arguments, error):
    """Above all one that does not say who may call it."""
    path = arguments.pop("path", "/x/")
    with pytest.raises(error):
        route("GET", path, **arguments)


def test_auth_has_no_default():
    """Forgetting it is not possible."""
    with pytest.raises(TypeError, match="auth"):
        Route("GET", "/x/", nothing, section="test", summary="Test.")


def test_two_routes_for_one_path_and_method_stop_the_start():
    """Whatever their parameters are called."""
    with pytest.raises(ValueError, match="declared twice"):
        make_app([route("GET", "/{a}/"), route("GET", "/{b}")], stopping=trio.Event())


async def test_a_body_that_does_not_come_is_408(monkeypatch):
    """And the connection ends, as nobody knows where the next request would begin."""
    monkeypatch.setattr("pipelit.web.dispatch.BODY_SECONDS", 0.01)
    head = b"POST /api/v1/open/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with serving(ROUTES) as server, await server.connect() as stream:
        await stream.send_all(head + b"Content-Length: 10\r\n\r\n{")
        answer = b""
        while b'{"detail":"Request Timeout"}' not in answer:
            answer += await stream.receive_some()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(("count", "is_beside"), [(10, False), (50_000, True)])
async def test_a_big_answer_is_encoded_beside_the_loop(monkeypatch, count, is_beside):
    """A small one is not worth a thread."""
    seen = []

    def watched(value):
        try:
            trio.lowlevel.current_task()
            seen.append(False)
        except RuntimeError:
            seen.append(True)
        return encode(value)

    async def numbers(_):
        return list(range(count))

    monkeypatch.setattr("pipelit.web.dispatch.encode", watched)
    async with serving([route("GET", "/x/", numbers)]) as server:
        assert (await server.client.get("/api/v1/x/")).json() == list(range(count))
    assert seen == [is_beside]
