"""http_request against a real server on loopback, opened by EGRESS_ALLOW."""

import json

import pytest

from pipelit.net.http import HttpResponse
from pipelit.nodes.base import NodeError, ToolError
from pipelit.nodes.http import http_request, http_request_tools, read_body
from tests.kit.http_server import Answer, serve
from tests.nodes.calls import call, node, services, tool_context


def tool_of(*open_ports, **extra):
    (tool,) = http_request_tools(
        node("http_request"), {"extra_config": extra}, services(*open_ports)
    )
    return tool


async def test_a_step_gives_all_its_ports():
    """Status, text, parsed JSON, lower-case headers, ok and the result line."""
    answer = Answer(200, {"Content-Type": "application/json", "X-A": "b"}, b'{"ok":true}')
    async with serve(lambda _: answer) as server:
        outcome = await http_request(call(using=services(server.port), url=f"{server.url}/ping"))

    ports = dict(outcome.ports)
    headers = ports.pop("headers")
    assert ports == {
        "status_code": 200,
        "body": '{"ok":true}',
        "json": {"ok": True},
        "ok": True,
        "result": 'HTTP 200\n{"ok":true}',
    }
    assert headers["x-a"] == "b"


async def test_error_statuses_are_results():
    """A 500 is a success of the node with `ok` false."""
    async with serve(lambda _: Answer(500, {}, b"oops")) as server:
        outcome = await http_request(call(using=services(server.port), url=server.url))

    assert (outcome.ports["ok"], outcome.ports["result"]) == (False, "HTTP 500\noops")
    assert outcome.ports["json"] is None


@pytest.mark.parametrize(
    ("method", "headers", "key"),
    [
        ("POST", {}, "e1:me:0"),
        ("DELETE", {}, "e1:me:0"),
        ("post", {}, "e1:me:0"),
        ("PUT", {"idempotency-key": "own"}, "own"),
        ("GET", {}, None),
        ("OPTIONS", {}, None),
    ],
)
async def test_methods_that_change_things_carry_the_idempotency_key(method, headers, key):
    """The key is stable over attempts and a configured one wins."""
    async with serve(lambda _: Answer()) as server:
        using = services(server.port)
        await http_request(call(using=using, url=server.url, method=method, headers=headers))

    assert server.seen[0].headers.get("idempotency-key") == key
    assert server.seen[0].method == method.upper()


async def test_an_object_body_is_json_and_a_text_is_sent_as_it_is():
    """Only an object brings its content type, and only if none is configured."""
    async with serve(lambda _: Answer()) as server:
        using = services(server.port)
        common = {"using": using, "url": server.url, "method": "POST"}
        await http_request(call(**common, body={"ä": [1]}))
        await http_request(call(**common, body={}, headers={"Content-Type": "x/y"}))
        await http_request(call(**common, body="plain"))

    as_object, own_type, as_text = server.seen
    assert json.loads(as_object.body) == {"ä": [1]}
    assert as_object.headers["content-type"] == "application/json"
    assert own_type.headers["content-type"] == "x/y"
    assert as_text.body == b"plain"
    assert "content-type" not in as_text.headers


async def test_local_addresses_are_refused_without_egress_allow():
    """The node fails for good and nothing is sent."""
    async with serve(lambda _: Answer()) as server:
        with pytest.raises(NodeError) as caught:
            await http_request(call(url=server.url))
        with pytest.raises(ToolError) as from_tool:
            await tool_of().run({"url": server.url}, tool_context())

    assert str(caught.value) == "blocked address: 127.0.0.1 (127.0.0.1)"
    assert (caught.value.code, caught.value.retryable) == ("EgressBlockedError", False)
    assert str(from_tool.value) == "blocked address: 127.0.0.1 (127.0.0.1)"
    assert server.seen == []


async def test_redirects_are_followed_only_if_configured_and_checked_again():
    """`follow_redirects` follows; a hop into a private address is refused."""

    def answer(seen):
        where = {"/in": "/end", "/out": "http://192.168.0.1/"}.get(seen.target)
        return Answer(302, {"location": where}) if where else Answer(body=b"end")

    async with serve(answer) as server:
        using = services(server.port)
        plain = await http_request(call(using=using, url=f"{server.url}/in"))
        followed = await http_request(
            call(using=using, url=f"{server.url}/in", follow_redirects=True)
        )
        with pytest.raises(NodeError, match=r"blocked address: 192.168.0.1 \(192.168.0.1\)"):
            await http_request(call(using=using, url=f"{server.url}/out", follow_redirects=True))

    assert plain.ports["status_code"] == 302
    assert followed.ports["body"] == "end"


@pytest.mark.parametrize(
    ("extra", "code", "message", "retryable"),
    [
        ({}, "ConfigError", "'url' is required", False),
        (
            {"url": "http://h/", "method": "TRACE"},
            "ConfigError",
            "unsupported method 'TRACE'",
            False,
        ),
        ({"url": "http://h/", "headers": "x"}, "ConfigError", "'headers' must be an object", False),
        ({"url": "ftp://h/"}, "UnsupportedProtocol", "UnsupportedProtocol: not an http", True),
        ({"url": "http://u:p@h/"}, "InvalidURL", "InvalidURL: URL with user info", True),
        (
            {"url": "http://h/", "headers": {"X": "a\nb"}},
            "LocalProtocolError",
            "invalid header",
            True,
        ),
        ({"url": "http://127.0.0.1:1/"}, "ConnectError", "ConnectError: ", True),
    ],
)
async def test_requests_that_fail_say_why(extra, code, message, retryable):
    """Configuration fails for good; the HTTP client's errors carry their class name."""
    with pytest.raises(NodeError) as caught:
        await http_request(call(using=services(1), **extra))

    assert message in str(caught.value)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)


async def test_the_tool_returns_the_status_line_and_the_beginning_of_the_body():
    """An empty method is the configured one; the body is cut at 4,000 characters."""
    async with serve(lambda _: Answer(body=b"y" * 5000)) as server:
        tool = tool_of(server.port, method="PUT")
        result = await tool.run({"url": server.url, "body": "in"}, tool_context("k"))
        await tool.run({"url": server.url, "method": "PATCH"}, tool_context("k"))

    assert result == "HTTP 200\n" + "y" * 4000
    assert [seen.method for seen in server.seen] == ["PUT", "PATCH"]
    assert server.seen[0].body == b"in"
    assert server.seen[0].headers["idempotency-key"] == "k"


async def test_the_tool_is_described_as_the_contract_has_it():
    """The schema of the example in the contract, word for word."""
    spec = tool_of().spec

    assert {"name": spec.name, "description": spec.description, "parameters": spec.parameters} == {
        "name": "http_request",
        "description": "Make one HTTP request. Returns the status line and the response body.",
        "parameters": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "description": "Absolute http(s) URL"},
                "method": {
                    "type": "string",
                    "default": "",
                    "description": "HTTP method; empty = configured default",
                },
                "body": {"type": "string", "default": "", "description": "Request body"},
            },
            "required": ["url"],
            "additionalProperties": False,
        },
    }


async def test_tool_failures_are_tool_errors():
    """A bad method and a refused connection are told to the model."""
    tool = tool_of(1)

    with pytest.raises(ToolError, match="unsupported method 'BREW'"):
        await tool.run({"url": "http://h/", "method": "BREW"}, tool_context())
    with pytest.raises(ToolError, match="ConnectError: "):
        await tool.run({"url": "http://127.0.0.1:1/"}, tool_context())


@pytest.mark.parametrize(
    ("content_type", "body", "truncated", "text"),
    [
        ("", "é".encode(), False, "é"),
        ("text/plain; charset=latin-1", b"\xe9", False, "é"),
        ("text/plain", b"ab\xc3", True, "ab"),
        ("text/plain", b"ab\xc3", False, "(binary, 3 bytes, text/plain)"),
        ("image/png", b"\x89PNG\0", False, "(binary, 5 bytes, image/png)"),
        ("text/plain", b"a\0b", False, "(binary, 3 bytes, text/plain)"),
        ("text/x; charset=nope", b"a", False, "(binary, 1 bytes, text/x; charset=nope)"),
        ("text/x; charset=rot13", b"a", False, "(binary, 1 bytes, text/x; charset=rot13)"),
        ("text/x; charset=zlib", b"a", False, "(binary, 1 bytes, text/x; charset=zlib)"),
        ("text/x; charset=punycode", b"a", False, "(binary, 1 bytes, text/x; charset=punycode)"),
        ("", b"", False, ""),
    ],
)
def test_bodies_are_text_or_described(content_type, body, truncated, text):
    """The charset decides; what does not decode, or holds a NUL, is binary."""
    headers = {"content-type": content_type} if content_type else {}
    response = HttpResponse(
        status=200, headers=headers, body=body, truncated=truncated, url="http://h/"
    )

    assert text == read_body(response).text


async def test_limits_of_the_config_are_kept():
    """The body stops at `max_response_bytes`; a template's text counts as a number."""
    async with serve(lambda _: Answer(body=b"y" * 100)) as server:
        subject = call(using=services(server.port), url=server.url, max_response_bytes="10")
        outcome = await http_request(subject)

    assert outcome.ports["body"] == "y" * 10
