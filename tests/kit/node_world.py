"""Where cases of component types play, and the list of them all."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from tests.kit.api import PATIENCE, Api
from tests.kit.bench_nodes import NodeBench
from tests.kit.model_server import ModelServer
from tests.kit.site import Site

INVALID = "ValidationError"
EMPTY = "{{ '' }}"
"""Empty only when it runs: what is empty before is found by validation."""
GATEWAY_TOKEN = "inbound-token"


@dataclass
class World:
    """Where a case plays: a server, a user, a model, a web server of the test."""

    site: Site
    api: Api
    other: Api
    """Somebody else."""
    provider: ModelServer
    nodes: NodeBench
    web: str

    def asked(self, role: str) -> str:
        """Return the last text of a role that the model was sent."""
        sent = json.loads(self.provider.requests[-1].body)["messages"]
        return str([message for message in sent if message["role"] == role][-1]["content"])

    async def question(self, execution_id: str) -> Any:
        """Wait until an execution asks; return its question."""
        with trio.fail_after(PATIENCE):
            async with self.api.follow(execution_id) as events:
                async for event in events:
                    if event["type"] == "execution_interrupted":
                        break
        return (await self.api.show(execution_id))["pending_confirmations"][0]

    async def started_by(self, slug: str, count: int = 1) -> Any:
        """Wait for the newest of so many executions of a workflow, and for its end."""
        with trio.fail_after(PATIENCE):
            while True:
                page = await self.api.get(f"/executions/?workflow_slug={slug}")
                if page["total"] >= count:
                    return await self.api.wait_end(page["items"][0]["execution_id"])
                await trio.sleep(0.05)  # another process starts it: there is nothing to wait on


Case = Callable[[World], Awaitable[None]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Keep a case under the name of its type."""
    CASES[function.__name__.removesuffix("_")] = function
    return function
