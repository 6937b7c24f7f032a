"""Starting and stopping the real server: the four defects stay walled off. Design: stack.md §2."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio_websocket import open_websocket_url

from pipelit.web.responses import StreamResponse
from pipelit.web.routing import Auth, Route
from pipelit.web.server import open_listener
from pipelit.web.ws.socket import Socket
from tests.kit.web_server import serving

MEBIBYTE = "x" * 1024 * 1024


async def hello(_):
    return {"hello": "world"}


HELLO = Route("GET", "/hello", hello, auth=Auth.NONE, section="test", summary="Say hello.")


async def flood(head, receive, send):
    """A WebSocket endpoint that sends for ever."""
    socket = Socket(receive, send)
    await socket.accept()
    while True:
        await socket.send_text(MEBIBYTE)


@asynccontextmanager
async def deaf_client(address):
    """Open a WebSocket and read nothing from it."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        await stream.send_all(handshake())
        yield stream


def handshake(extra=""):
    return (
        "GET /ws/ HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"{extra}\r\n"
    ).encode()


async def read_until(stream, end):
    data = b""
    with trio.fail_after(5):
        while end not in data:
            piece = await stream.receive_some()
            assert piece, data
            data += piece
    return data


async def stop_time(server):
    """Stop the server; return how long it took."""
    started = trio.current_time()
    server.stopping.set()
    await server.stopped.wait()
    return trio.current_time() - started


async def test_an_idle_kept_alive_connection_does_not_delay_the_stop():
    """One open browser tab must not cost the whole grace."""
    async with serving(root=[HELLO], grace=5.0) as server, await server.connect() as stream:
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_until(stream, b"}")
        assert await stop_time(server) < 1.0


async def test_a_connection_is_kept_for_further_requests():
    """The cure does not end connections that are good."""
    async with serving(root=[HELLO]) as server, await server.connect() as stream:
        for _ in range(3):
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 200")


async def test_a_socket_that_does_not_read_is_cut_off_after_the_grace():
    """The operator's stop takes as long as the settings say, whoever is connected."""
    async with (
        serving(serve_socket=flood, grace=0.2) as server,
        deaf_client(server.address),
    ):
        await trio.sleep(0.2)
        # 3 s for sockets to say goodbye, the grace, 1 s of patience
        assert await stop_time(server) < 5.5


async def test_cancelling_the_server_does_not_wait_for_a_socket_that_does_not_read():
    """A second signal ends the process at once."""
    async with AsyncExitStack() as outer:
        async with serving(serve_socket=flood) as server:
            await outer.enter_async_context(deaf_client(server.address))
            await trio.sleep(0.2)
            started = trio.current_time()
        assert trio.current_time() - started < 2.0


async def test_the_kernel_ends_a_socket_that_does_not_read():
    """No send of ours may wait for ever; the server's own are shielded."""
    ended = trio.Event()

    async def endpoint(head, receive, send):
        socket = Socket(receive, send)
        await socket.accept()
        async with trio.open_nursery() as nursery:

            async def listen():
                while await socket.receive() is not None:
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            while True:
                await socket.send_text(MEBIBYTE)
        ended.set()

    async with (
        serving(serve_socket=endpoint, user_timeout=0.5) as server,
        deaf_client(server.address),
    ):
        with trio.fail_after(10):
            await ended.wait()


async def test_sending_to_a_socket_that_left_does_not_freeze_the_process():
    """Other clients get their answers."""
    async with serving(root=[HELLO], serve_socket=flood, grace=0.1) as server:
        async with open_websocket_url(f"ws://127.0.0.1:{server.address.port}/ws/") as ws:
            await ws.get_message()
            await trio.aclose_forcefully(ws._stream)
        for _ in range(5):
            assert (await server.client.get("/hello")).json() == {"hello": "world"}


async def test_streaming_to_a_reader_that_left_does_not_freeze_the_process():
    """The same for response bodies; the handler is cancelled."""
    cancelled = trio.Event()

    async def produce(send):
        try:
            while True:
                await send(b"x" * 1024)
        finally:
            cancelled.set()

    async def handler(_):
        return StreamResponse(produce=produce, content_type="text/plain")

    endless = Route(
        "GET", "/endless", handler, auth=Auth.NONE, section="test", summary="Never end."
    )
    async with serving(root=[HELLO, endless]) as server:
        async with await server.connect() as stream:
            await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
            await read_until(stream, b"xxxx")
        assert (await server.client.get("/hello")).json() == {"hello": "world"}
        with trio.fail_after(5):
            await cancelled.wait()


async def test_compression_is_not_negotiated():
    """It costs 120 KB a socket."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

    async def accept(head, receive, send):
        await Socket(receive, send).accept()

    async with serving(serve_socket=accept) as server, await server.connect() as stream:
        await stream.send_all(handshake(offer))
        head = (await read_until(stream, b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101")
        assert b"extensions" not in head


async def test_the_server_does_not_say_what_it_is():
    """No `Server` header."""
    async with serving(root=[HELLO]) as server:
        assert "server" not in (await server.client.get("/hello")).headers


async def test_a_running_request_gets_the_grace():
    """Stopping waits for answers under way, and refuses new API requests."""
    inside, finish = trio.Event(), trio.Event()

    async def slow(_):
        inside.set()
        await finish.wait()
        return {"done": True}

    route = Route("GET", "/slow", slow, auth=Auth.NONE, section="test", summary="Take a while.")
    answers = []
    async with serving(root=[route], grace=5.0) as server, trio.open_nursery() as nursery:

        async def ask():
            answers.append((await server.client.get("/slow")).json())

        nursery.start_soon(ask)
        await inside.wait()
        server.stopping.set()
        finish.set()
        with trio.fail_after(2):
            await server.stopped.wait()
    assert answers == [{"done": True}]


async def test_an_address_in_use_is_an_os_error():
    """The start fails with one sentence, not with a group."""
    first = await open_listener("127.0.0.1", 0, user_timeout=1.0)
    async with first:
        taken = first.socket.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await open_listener("127.0.0.1", taken, user_timeout=1.0)


@pytest.mark.parametrize(
    "greeting",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ],
    ids=["prior-knowledge", "upgrade"],
)
async def test_only_http_1_is_spoken(greeting):
    """An offer of HTTP/2 is not taken, and its connection does not delay the stop."""
    async with serving(root=[HELLO], grace=5.0) as server, await server.connect() as stream:
        await stream.send_all(greeting)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(
            (b"HTTP/1.1 505", b"HTTP/1.1 200")
        )
        assert await stop_time(server) < 1.0
