"""An agent calls the server's own API, and no other. Contract: node-types.md §8.2."""

import json
from typing import NoReturn

import pytest

from pipelit.net.egress import EgressPolicy
from pipelit.net.http import HttpClient, HttpError, HttpRequest
from pipelit.nodes.base import ToolError
from pipelit.nodes.platform_api import build_request, platform_api_tools
from pipelit.nodes.tool_arguments import ArgumentChecker
from tests.kit.http_server import Answer, Seen, serve
from tests.nodes.calls import node, services, tool_context


async def ask(base_url: str, **arguments: object) -> str:
    """Call the tool of a server that is at *base_url*."""
    client = HttpClient(EgressPolicy.parse([], own_urls=[base_url]), "workflow")
    (tool,) = platform_api_tools(
        node("platform_api"), {}, services(), client=client, base_url=base_url
    )
    checked, problem = ArgumentChecker("x", tool.spec.parameters).check(arguments)
    assert problem is None
    try:
        return await tool.run(checked, tool_context())
    finally:
        await client.aclose()


def request(path: str = "/x", *, base: str = "http://here:8000", **more: str):
    return build_request(base, **{"method": "GET", "body": "", "api_key": "", **more, "path": path})


@pytest.mark.parametrize(
    "path",
    ["//evil.example/x", "evil.example", "", "http://evil.example/", "@evil.example/"],
)
def test_a_path_begins_with_one_stroke(path):
    with pytest.raises(ToolError) as caught:
        request(path)

    assert json.loads(caught.value.told) == {
        "error": "path must start with '/'",
        "success": False,
    }


@pytest.mark.parametrize(
    "path", ["/../admin", "/a/../../x", "/%2e%2e/x", "/a/%252e%252e/x", "/a\\..\\x", "/./x"]
)
def test_a_path_does_not_leave_the_server_s_own(path):
    """A server may share its host with others, under another path."""
    with pytest.raises(ToolError, match="must not contain"):
        request(path, base="http://here/pipelit")


@pytest.mark.parametrize(
    "path", ["/@evil.example/", "/x?next=//evil.example/../", "/x#//y", "/:80/"]
)
def test_no_path_changes_the_host(path):
    """Whatever it says, it comes after the host."""
    assert request(path, base="http://here:8000/").url == f"http://here:8000{path}"


@pytest.mark.parametrize("method", ["PUT", "HEAD", "CONNECT", ""])
def test_other_methods_are_refused(method):
    with pytest.raises(ToolError) as caught:
        request(method=method)

    assert json.loads(caught.value.told) == {"error": f"Unsupported method: {method}"}


def test_a_body_is_sent_where_there_may_be_one():
    """With `{}` for none; the key as a bearer."""
    post = request(method="post", api_key="k")
    patch = request(method="PATCH", body='{"a": 1}')
    get = request(body='{"a": 1}')

    assert (post.body, post.headers["Authorization"]) == (b"{}", "Bearer k")
    assert (patch.body, patch.headers["Content-Type"]) == (b'{"a": 1}', "application/json")
    # Nobody at this machine asks: what is for them only must be refused.
    assert (get.body, get.headers) == (b"", {"Forwarded": "for=_workflow"})


async def test_an_answer_is_told_with_its_status():
    """JSON as JSON, other text as text; the request carries the key."""

    def answer(asked: Seen) -> Answer:
        if asked.method == "DELETE":
            return Answer(404, body=b"gone")
        return Answer(200, body=b'{"items": []}')

    async with serve(answer) as server:
        good = await ask(server.url, path="/api/v1/workflows/?limit=1", api_key="k")
        bad = await ask(server.url, method="DELETE", path="/x")

    assert good == (
        '{\n  "status_code": 200,\n  "success": true,\n  "data": {\n    "items": []\n  }\n}'
    )
    assert json.loads(bad) == {
        "status_code": 404,
        "success": False,
        "data": "gone",
        "error": "HTTP 404",
    }
    assert server.seen[0].target == "/api/v1/workflows/?limit=1"
    assert server.seen[0].headers["authorization"] == "Bearer k"


async def test_a_redirect_is_not_followed():
    """It could lead anywhere, with the key."""
    async with serve(lambda _: Answer(302, {"location": "http://127.0.0.1:1/"})) as server:
        told = json.loads(await ask(server.url, path="/x", api_key="k"))

    assert (told["status_code"], told["success"]) == (302, False)


class Silent:
    """A client whose time is always over."""

    async def request(self, wanted: HttpRequest) -> NoReturn:
        assert wanted.timeout == 30.0
        raise HttpError("no complete answer within 30 s", code="TimeoutException")


async def test_an_answer_that_does_not_end_is_given_up():
    (tool,) = platform_api_tools(
        node("platform_api"), {}, services(), client=Silent(), base_url="http://here"
    )
    arguments = {"method": "GET", "path": "/x", "body": "", "api_key": ""}
    with pytest.raises(ToolError) as caught:
        await tool.run(arguments, tool_context())

    assert json.loads(caught.value.told) == {"error": "Request timed out", "success": False}


async def test_a_server_that_is_away_is_a_failure():
    with pytest.raises(ToolError) as caught:
        await ask("http://127.0.0.1:1", path="/x")

    told = json.loads(caught.value.told)
    assert told["success"] is False
    assert told["error"]
