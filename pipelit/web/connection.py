"""Quart-Trio's two connection classes, cured of what bites under load and at shutdown.

The framework's own `__call__` cancels a request's nursery while the last byte is being finished,
buffers bodies past any limit and turns a crashed WebSocket handler into a clean close.
These classes replace it through the framework's public hooks; design: stack.md §2.
"""

from typing import TYPE_CHECKING

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, WebsocketScope
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection

from pipelit.web.dispatch import Answer
from pipelit.web.request import BodyInbox, read_head

if TYPE_CHECKING:
    from pipelit.web.app import WebApp

LINGER_SECONDS = 5.0
"""After an early answer a client gets this long to finish its body and read."""


class HttpConnection(TrioASGIHTTPConnection):
    """One request on its connection: a task that listens, and the request's own."""

    def __init__(self, app: "WebApp", scope: HTTPScope) -> None:
        self._web = app
        self._scope = scope
        self._is_handed_over = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request. A client that leaves earlier cancels everything here."""
        inbox = BodyInbox(self._web.max_request_bytes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, receive, inbox, nursery.cancel_scope)
            answer = await self._web.dispatcher.answer(read_head(self._scope), inbox)
            await self._send(answer, send, inbox)
            nursery.cancel_scope.cancel()

    async def _listen(
        self, receive: ASGIReceiveCallable, inbox: BodyInbox, scope: trio.CancelScope
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.request":
                inbox.feed(message.get("body", b""), more=message.get("more_body", False))
            elif message["type"] == "http.disconnect":
                # The server says this also about a response it is just finishing; cancelling then
                # would leave the kept-alive connection without its idle timer, for ever.
                if not self._is_handed_over:
                    scope.cancel()
                return

    async def _send(self, answer: Answer, send: ASGISendCallable, inbox: BodyInbox) -> None:
        headers = [
            (k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in answer.headers.items()
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})

        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            # A send on a closed stream returns at once: without this a loop around it would
            # never let another task run.
            await trio.lowlevel.checkpoint()

        if answer.produce is not None:
            await answer.produce(send_chunk)
        elif answer.content:
            await send_chunk(answer.content)
        if not inbox.ended.is_set():
            with trio.move_on_after(LINGER_SECONDS):
                await inbox.ended.wait()
        self._is_handed_over = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class SocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket: its endpoint gets the server's own receive and send."""

    def __init__(self, app: "WebApp", scope: WebsocketScope) -> None:
        self._web = app
        self._scope = scope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the endpoint until it ends; a crash of it makes the server close with 1011."""
        await self._web.serve_socket(read_head(self._scope), receive, send)
