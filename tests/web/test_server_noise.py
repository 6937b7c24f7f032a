"""Whatever bytes arrive, the server goes on serving others."""

import random

import pytest
import trio

from pipelit.web.ws.endpoint import SocketEndpoint
from tests.kit.feed import FakeFeed
from tests.kit.web_server import authenticate, serving
from tests.web.test_server_stop import HELLO, handshake

CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
FRAME = b"\x81\x82\x00\x00\x00\x00{}"


async def throw(server, *pieces):
    """Send bytes, then read whatever comes until the other side ends or nothing comes."""
    async with await server.connect() as stream:
        try:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.02):
                while await stream.receive_some():
                    pass
        except trio.BrokenResourceError:
            pass


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\x00\xff" * 100],
        [b"GET / HTTP/1.1\r\nHost: h\r\n", b"no colon\r\n\r\n"],
        [b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"],
        [b"POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n123"],
        [b"POST /hello HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n" * 50],
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 50],
        [b"GET /%ff%00?%ff=%00 HTTP/1.1\r\nHost: h\r\n\r\n"],
    ],
)
async def test_broken_requests_harm_nobody_else(pieces):
    """A parser error ends one connection."""
    async with serving(root=[HELLO]) as server:
        await throw(server, *pieces)
        assert (await server.client.get("/hello")).status_code == 200


@pytest.mark.parametrize(
    "pieces",
    [
        [CLOSE + FRAME],
        [CLOSE, FRAME, FRAME],
        [b"\xff" * 100],
        [b"\x81\x02{}"],
        [b"\x81\x82\x00\x00\x00\x00\xff\xfe"],
        [b"\x81\xff" + (2**40).to_bytes(8, "big") + b"\x00" * 4 + b"a" * 70_000, b"a" * 70_000],
        [b"\x01\x81\x00\x00\x00\x00a"] + [b"\x00\xfe\xff\xff\x00\x00\x00\x00" + b"a" * 65535] * 5,
        [b"\x89\x80\x00\x00\x00\x00" * 500],
        [FRAME * 5000],
        [b"\x88\x80\x00\x00\x00\x00", b"\x88\x80\x00\x00\x00\x00"],
    ],
)
@pytest.mark.parametrize("key", ["ada-key", "wrong"])
async def test_broken_frames_harm_nobody_else(pieces, key):
    """A protocol error ends one socket."""
    endpoint = SocketEndpoint(FakeFeed(), authenticate, trio.Event())
    hello = handshake().replace(b"/ws/", b"/ws/?token=" + key.encode())
    async with serving(root=[HELLO], serve_socket=endpoint) as server:
        await throw(server, hello, *pieces)
        await throw(server, hello + b"".join(pieces))
        assert (await server.client.get("/hello")).status_code == 200


@pytest.mark.parametrize("seed", range(2))
async def test_random_frames_harm_nobody_else(seed):
    """Bits nobody thought of."""
    dice = random.Random(seed)
    endpoint = SocketEndpoint(FakeFeed(), authenticate, trio.Event())
    hello = handshake().replace(b"/ws/", b"/ws/?token=ada-key")
    async with serving(root=[HELLO], serve_socket=endpoint) as server:
        for _ in range(20):
            await throw(server, hello, dice.randbytes(dice.randrange(1, 200)), CLOSE)
            await throw(server, dice.randbytes(dice.randrange(1, 200)))
        assert (await server.client.get("/hello")).status_code == 200
