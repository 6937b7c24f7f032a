"""A model provider that takes a fixed time: a process of its own, so that its work is not ours.

Usage: python ops/bench/rig/model.py --delay SECONDS --pieces N --pause SECONDS

Prints its port and serves until its input is closed. A request is answered after `delay` with
`pieces` pieces of text, `pause` apart. It reads the least that is right about the SDK's requests.
"""

import argparse
import sys
from functools import partial

import trio

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
_LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(options: argparse.Namespace, stream: trio.SocketStream) -> None:
    buffer = b""
    try:
        while True:
            while b"\r\n\r\n" not in buffer:
                more = await stream.receive_some()
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
            length = int(lengths[0].split(b":")[1]) if lengths else 0
            while len(buffer) < length:
                buffer += await stream.receive_some()
            buffer = buffer[length:]
            await trio.sleep(options.delay)
            await stream.send_all(_HEAD)
            for _ in range(options.pieces):
                await stream.send_all(_chunk(_PIECE))
                await trio.sleep(options.pause)
            await stream.send_all(_chunk(_LAST) + b"0\r\n\r\n")
    except trio.BrokenResourceError:  # the client has cancelled
        return


async def _until_closed(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(0) as parent:
        while await parent.receive_some():
            pass
    scope.cancel()


async def _main(options: argparse.Namespace) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=20_000)
    print(listeners[0].socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_closed, nursery.cancel_scope)
        await trio.serve_listeners(partial(_serve, options), listeners)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--pieces", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    trio.run(_main, parser.parse_args(sys.argv[1:]))
