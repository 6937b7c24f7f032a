"""A server with scripted answers on a real port: what it is asked is written down.

It speaks the contract's frames and nothing of the product, so that the commands are tested against
the contract.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, request, websocket
from quart_trio import QuartTrio

from pipelit.cli.client import Target

KEY = "test-key-0123456789"
RUN_ID = "3f1c8a52-6d0e-4b7f-9a55-0c2e8d714b90"


def event(seq: int | None, type_: str, **data: Any) -> dict[str, Any]:
    """Make one execution event of the contract; the time is `seq` tenths of a second."""
    body = {
        "type": type_,
        "channel": f"execution:{RUN_ID}",
        "timestamp": 1772442300.0 + (seq or 0) / 10,
        "execution_id": RUN_ID,
        "data": {"execution_id": RUN_ID, **data},
    }
    return body if seq is None else {**body, "seq": seq}


def node(seq: int, node_id: str, status: str, kind: str = "Agent", **more: Any) -> dict[str, Any]:
    """Make one `node_status` event."""
    return event(
        seq, "node_status", node_id=node_id, status=status, component_type=kind.lower(),
        display_name=kind, node_label=node_id, **more,
    )  # fmt: skip


SUMMARY = {
    "total_steps": 1, "total_duration_ms": 300, "total_tokens": 12, "total_cost_usd": 0.0,
    "llm_calls": 1, "tool_invocations": 1, "child_count": 0,
}  # fmt: skip
COMPLETED_RUN = (
    event(1, "execution_started", workflow_id=1),
    node(2, "agent_1", "running"),
    node(3, "calc", "success", "Calculator", duration_ms=1, is_tool_call=True,
         tool_name="calculator", parent_node_id="agent_1"),
    event(4, "chat_message", node_id="agent_1", text="12*17 is 204."),
    node(5, "agent_1", "success", duration_ms=248),
    event(6, "execution_completed", status="completed", output={"output": "12*17 is 204."},
          activity_summary=SUMMARY),
)  # fmt: skip


class FakeServer:
    """Holds the scripted answers and what was asked. Owned by one test."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.subscriptions: list[int] = []
        self.subscriptions_per_socket = 1
        self.scripts: list[list[dict[str, Any]]] = []
        self.cancelled = trio.Event()
        self.hold_cancel = False
        self.played = trio.Event()
        self.url = ""

    @property
    def target(self) -> Target:
        return Target(url=self.url, key=KEY)

    def answer(self, method: str, path: str, status: int, body: Any = None) -> None:
        """Script the answer to a path below `/api/v1`."""
        self.answers[method, path] = (status, body)

    def play(self, *events: dict[str, Any]) -> None:
        """Script the events that the next subscription gets."""
        self.scripts.append(list(events))

    async def handle(self, path: str) -> Response:
        body = await request.get_json(silent=True)
        self.asked.append((request.method, f"/{path}", body))
        if path.endswith("/cancel/"):
            if self.hold_cancel:
                await trio.sleep_forever()
            self.cancelled.set()
        status, answer = self.answers.get(
            (request.method, f"/{path}"), (404, {"detail": "Not Found"})
        )
        if request.headers.get("Authorization") != f"Bearer {KEY}" and "auth" not in path:
            status, answer = 401, {"detail": "Invalid or missing API key."}
        text = "" if answer is None else json.dumps(answer)
        return Response(text, status, content_type="application/json")

    async def socket(self) -> None:
        await websocket.accept()
        if websocket.headers.get("Authorization") != f"Bearer {KEY}":
            await websocket.close(1008, "Invalid or missing token")
            return
        for _ in range(self.subscriptions_per_socket):
            frame = json.loads(await websocket.receive())
            self.subscriptions.append(frame["since"])
            await self._play(self.scripts.pop(0), frame)
        self.played.set()
        await websocket.close(1001, "Server shutting down")

    async def _play(self, script: list[dict[str, Any]], frame: dict[str, Any]) -> None:
        stored = [one for one in script if one.get("seq", 0) > frame["since"] or "seq" not in one]
        answer = {"type": "subscribed", "channel": frame["channel"], "last_seq": 0}
        for one in (answer, *stored):
            if one["type"] == "execution_cancelled":
                await self.cancelled.wait()
            await websocket.send(json.dumps(one))
            if one["type"] == "ping":
                assert json.loads(await websocket.receive()) == {"type": "pong"}


@asynccontextmanager
async def serving() -> AsyncIterator[FakeServer]:
    """Listen on a free port for the length of the block."""
    server = FakeServer()
    app = QuartTrio(__name__)
    app.add_url_rule(
        "/api/v1/<path:path>", "api", server.handle, methods=["GET", "POST", "PATCH", "DELETE"]
    )
    app.add_websocket("/ws/", "ws", server.socket)
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.1
    config.errorlog = None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        (server.url,) = await nursery.start(start)
        yield server
        stop.set()
        nursery.cancel_scope.cancel()
