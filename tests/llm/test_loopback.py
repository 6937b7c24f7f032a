"""The small server behind scripted models."""

from functools import partial

import httpx2
import pytest
import trio

from pipelit.llm import loopback
from pipelit.llm.loopback import Exchange, serve_http


async def echo(exchange: Exchange) -> None:
    await exchange.respond(200, exchange.request.body, headers={"x-path": exchange.request.path})


async def test_requests_share_a_connection(http: httpx2.AsyncClient, nursery: trio.Nursery) -> None:
    """Keep-alive works; so do bodies and paths with a query."""
    url = await nursery.start(partial(serve_http, echo))

    for body in (b"", b"x" * 200_000):
        answer = await http.post(f"{url}/a?b=1", content=body)
        assert (answer.content, answer.headers["x-path"]) == (body, "/a?b=1")


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"", b"GET / HTTP/1.1\r\nhost: a\r\n"])
async def test_whoever_speaks_something_else_is_dropped(nursery: trio.Nursery, data: bytes) -> None:
    """The server goes on for others."""
    url = await nursery.start(partial(serve_http, echo))
    port = int(url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    if data:
        await stream.send_all(data)
    await stream.send_eof()

    with trio.fail_after(5):
        while await stream.receive_some():
            pass
    await stream.aclose()

    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.post(url, content=b"hi")).content == b"hi"


async def test_a_body_that_is_too_large_is_not_read(
    http: httpx2.AsyncClient, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded here too."""
    monkeypatch.setattr(loopback, "MAX_BODY_BYTES", 10)
    url = await nursery.start(partial(serve_http, echo))

    with pytest.raises(httpx2.TransportError):
        await http.post(url, content=b"x" * 11)


async def test_two_requests_at_once_are_answered_in_turn(nursery: trio.Nursery) -> None:
    """Bytes of the next request that come early are kept."""
    url = await nursery.start(partial(serve_http, echo))
    stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
    await stream.send_all(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n")

    received = b""
    with trio.fail_after(5):
        while received.count(b"x-path") < 2:
            received += await stream.receive_some()

    assert received.index(b"/1") < received.index(b"/2")
    await stream.aclose()
