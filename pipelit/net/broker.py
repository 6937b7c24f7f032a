"""Does the configured broker answer? Nothing but `/health` uses one. Contract: health.md."""

from urllib.parse import unquote, urlsplit

import trio

DEFAULT_PORT = 6379
_MAX_REPLY = 1024


async def ping_broker(url: str) -> bool:
    """Send `PING` to a Redis server (after `AUTH`, when *url* names a password).

    Whoever calls this sets the deadline. A refused connection raises `OSError`.
    """
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "localhost", parts.port or DEFAULT_PORT)
    async with stream:
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            await stream.send_all(_command("AUTH", *user, unquote(parts.password)))
            await stream.receive_some(_MAX_REPLY)
        await stream.send_all(_command("PING"))
        reply: bytes = await stream.receive_some(_MAX_REPLY)
    return reply.startswith(b"+PONG")


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    head = f"*{len(encoded)}\r\n".encode()
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
