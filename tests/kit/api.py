"""A caller of a running server: builds workflows, starts runs, follows their events to the end."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import trio

from tests.kit.witness import hear_product

PATIENCE = 30.0
"""Seconds until something that is due counts as missing; much, for a machine that is busy."""

TERMINAL = ("completed", "failed", "cancelled")


def http_client(url: str) -> httpx2.AsyncClient:
    """Return a client for a server on this machine, without TLS, whose context is slow to build.

    An answer that the product does not declare fails the test.
    """
    return httpx2.AsyncClient(
        base_url=url,
        trust_env=False,
        verify=False,
        timeout=PATIENCE,
        event_hooks={"response": [hear_product]},
    )


class Api:
    """One user's view of the server. Paths are those below `/api/v1`."""

    def __init__(self, http: httpx2.AsyncClient, key: str = "") -> None:
        self.http = http
        self.key = key

    async def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> httpx2.Response:
        """Send one request, whatever the answer; `a_b=…` is the header `a-b`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {self.key}"} | sent if self.key else sent
        content = {} if body is None else {"json": body}
        with trio.fail_after(PATIENCE):
            return await self.http.request(method, f"/api/v1{path}", headers=sent, **content)

    async def get(self, path: str) -> Any:
        """Return the body of a GET that must succeed."""
        return self._good(await self.call("GET", path))

    async def post(self, path: str, body: object = None, **headers: str) -> Any:
        """Return the body of a POST that must succeed."""
        return self._good(await self.call("POST", path, body, **headers))

    async def setup(self, username: str = "ada") -> "Api":
        """Make the first admin and become it."""
        answer = await self.post(
            "/auth/setup/", {"username": username, "password": "correct horse battery"}
        )
        self.key = answer["key"]
        return self

    async def add_model(self, base_url: str) -> int:
        """Store a credential for a provider and return its id."""
        credential = await self.post(
            "/credentials/",
            {
                "name": "model",
                "credential_type": "llm",
                "detail": {
                    "provider_type": "openai_compatible",
                    "api_key": "sk-test-0123456789",
                    "base_url": base_url,
                },
            },
        )
        return int(credential["id"])

    async def build(
        self,
        slug: str,
        nodes: Mapping[str, tuple[str, Mapping[str, Any]]],
        edges: str,
        **more: object,
    ) -> Any:
        """Create a workflow. Edges: `a -> b`, `a -> b : label`, `a -> b = condition`, by commas."""
        workflow = await self.post("/workflows/", {"name": slug, "slug": slug, **more})
        for node_id, (component_type, config) in nodes.items():
            node = {"node_id": node_id, "component_type": component_type, "config": config}
            await self.post(f"/workflows/{slug}/nodes/", node)
        for edge in filter(None, edges.split(", ")):
            await self.post(f"/workflows/{slug}/edges/", _edge(edge))
        return workflow

    async def chat(self, slug: str, text: str) -> str:
        """Send a chat message and return the id of the execution it starts."""
        return str((await self.post(f"/workflows/{slug}/chat/", {"text": text}))["execution_id"])

    async def run(self, slug: str, **payload: object) -> str:
        """Start a workflow by hand and return the id of the execution."""
        body = {"text": str(payload.get("text", "go")), "payload": payload}
        return str((await self.post(f"/workflows/{slug}/execute/", body))["execution_id"])

    async def show(self, execution_id: str) -> Any:
        """Return the detail of an execution."""
        return await self.get(f"/executions/{execution_id}/")

    async def events(self, execution_id: str) -> list[Any]:
        """Return the stored events of an execution, all of them."""
        page = await self.get(f"/executions/{execution_id}/events/?limit=1000")
        items: list[Any] = page["items"]
        assert len(items) == page["total"]
        return items

    @asynccontextmanager
    async def follow(
        self, execution_id: str, since: int = 0
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Any]]:
        """Stream the events of an execution after *since* to its end."""
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "text/event-stream"}
        path = f"/api/v1/executions/{execution_id}/events/?since={since}"
        send, receive = trio.open_memory_channel[Any](10_000)

        async def read() -> None:
            with send:
                async with self.http.stream("GET", path, headers=headers) as answer:
                    assert answer.status_code in {200, 204}, answer.status_code
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            # Not awaited: a cancelled loop body would leave the generators of
                            # the HTTP client behind, unfinished.
                            send.send_nowait(json.loads(line.removeprefix("data: ")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            yield receive
            nursery.cancel_scope.cancel()

    async def wait_for(
        self, execution_id: str, *, seconds: float = PATIENCE, **data: object
    ) -> Any:
        """Wait for the first event whose data has all of *data*."""
        with trio.fail_after(seconds):
            async with self.follow(execution_id) as events:
                async for event in events:
                    if data.items() <= event["data"].items():
                        return event
        raise AssertionError(f"{execution_id} ended without an event with {data}")

    async def wait_end(self, execution_id: str, *, seconds: float = PATIENCE) -> Any:
        """Wait until an execution has ended and return its detail."""
        with trio.fail_after(seconds):
            async with self.follow(execution_id) as events:
                async for _ in events:
                    pass
        detail = await self.show(execution_id)
        assert detail["status"] in TERMINAL
        return detail

    def _good(self, answer: httpx2.Response) -> Any:
        assert answer.status_code < 300, f"{answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()


def node_events(events: Sequence[Any], node_id: str) -> list[str]:
    """Return the statuses a node went through."""
    return [
        event["data"]["status"]
        for event in events
        if event["type"] == "node_status" and event["data"]["node_id"] == node_id
    ]


def _edge(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(" -> ")
    target, _, label = rest.partition(" : ")
    target, _, condition = target.partition(" = ")
    edge: dict[str, Any] = {"source_node_id": source, "target_node_id": target}
    if condition:
        edge |= {"edge_type": "conditional", "condition_value": condition}
    if label:
        edge["edge_label"] = label
    return edge


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Api]:
    """Be somebody without a key at the server of *url*."""
    async with http_client(url) as http:
        yield Api(http)
