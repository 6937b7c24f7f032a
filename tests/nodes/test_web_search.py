"""web_search against a real server on loopback, opened by EGRESS_ALLOW."""

import json

import pytest

from pipelit.nodes.base import NodeError, ToolError
from pipelit.nodes.web_search import web_search, web_search_tools
from tests.kit.http_server import Answer, serve
from tests.nodes.calls import call, node, services, tool_context

HITS = [{"title": f"T{n}", "url": f"https://{n}.example", "content": "c" * 300} for n in range(7)]


def answering(results, status=200):
    return lambda _: Answer(status, {}, json.dumps({"results": results}).encode())


def nowhere(url="http://127.0.0.1:1"):
    async def find_server():
        return url

    return find_server


async def search_as_tool(*open_ports, query="x", **extra):
    (tool,) = web_search_tools(
        node("web_search"),
        {"extra_config": extra},
        services(*open_ports),
        find_server=nowhere(),
    )
    return await tool.run({"query": query}, tool_context())


async def test_a_step_gives_the_top_results_as_text_and_as_list():
    """Five of them; the text cuts the content, the list does not."""
    async with serve(answering(HITS)) as server:
        outcome = await web_search(
            call(using=services(server.port), query="trio & curio", searxng_url=f"{server.url}/"),
            find_server=nowhere(),
        )

    assert server.seen[0].target == "/search?q=trio+%26+curio&format=json"
    assert outcome.ports["results"] == HITS[:5]
    blocks = outcome.ports["result"].split("\n\n")
    assert len(blocks) == 5
    assert blocks[0] == f"- T0\n  https://0.example\n  {'c' * 200}"


async def test_without_a_server_of_its_own_it_asks_the_platforms():
    """`searxng_url` empty: what the assembly found."""
    async with serve(answering(HITS[:1])) as server:
        outcome = await web_search(
            call(using=services(server.port), query="x"), find_server=nowhere(server.url)
        )

    assert len(outcome.ports["results"]) == 1


async def test_the_tool_is_what_the_model_is_offered():
    """Name, description and schema are the contract's; no hits are said so."""
    (tool,) = web_search_tools(node(), {}, services(), find_server=nowhere())
    assert (tool.spec.name, tool.spec.description) == (
        "web_search",
        "Search the web. Returns the top results.",
    )
    assert tool.spec.parameters["required"] == ["query"]

    async with serve(answering([])) as server:
        assert await search_as_tool(server.port, searxng_url=server.url) == "No results found."


async def test_a_query_is_required_as_a_step():
    """It is a config error, not retried."""
    with pytest.raises(NodeError, match="'query' is required") as caught:
        await web_search(call(query=" "), find_server=nowhere())

    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(503, {}, b"busy"), "Search error: HTTP 503"),
        (Answer(200, {}, b"<html>"), "Search error: the server's answer is not JSON"),
        (Answer(200, {}, b"[]"), "Search error: the server's answer has no results"),
    ],
)
async def test_a_failed_search_fails_the_step_and_is_told_to_the_model(answer, told):
    """The same text without `Error: `; steps are retried."""
    async with serve(lambda _: answer) as server:
        with pytest.raises(NodeError) as step:
            await web_search(
                call(using=services(server.port), query="x", searxng_url=server.url),
                find_server=nowhere(),
            )
        with pytest.raises(ToolError) as tool:
            await search_as_tool(server.port, searxng_url=server.url)

    assert (str(step.value), step.value.code, step.value.retryable) == (told, "ToolError", True)
    assert tool.value.told == told


async def test_addresses_pass_the_egress_policy():
    """A refused one is an egress error as a step, and never retried."""
    told = "Search error: blocked address: 127.0.0.1 (127.0.0.1)"

    with pytest.raises(NodeError) as step:
        await web_search(call(query="x"), find_server=nowhere())
    with pytest.raises(ToolError) as tool:
        await search_as_tool(searxng_url="http://127.0.0.1:9")

    assert str(step.value) == told
    assert (step.value.code, step.value.retryable) == ("EgressBlockedError", False)
    assert tool.value.told == told
