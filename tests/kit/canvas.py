"""A server that offers only the canvas (workflows, nodes, edges), on a real store and socket.

Import the fixture where it is wanted: `from tests.kit.canvas import canvas`. Ada is an admin, Bob
is not; their keys are those of `tests.kit.web_server`.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest
import trio
from sqlalchemy import Connection, insert

from pipelit.clock import Clock, Ids
from pipelit.services.canvas import Canvas
from pipelit.services.edges import EdgesService
from pipelit.services.model_lists import ModelLists
from pipelit.services.node_schedules import NodeSchedulesService
from pipelit.services.nodes import NodesService
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedules import SchedulesService
from pipelit.services.workflows import WorkflowsService
from pipelit.store import Store, schema
from pipelit.store.queries.journal import Owner
from pipelit.web.call import Services
from pipelit.web.routes import edges, node_schedules, nodes, schedules, workflows
from tests.kit.web_server import ADA, BOB, serving
from tests.kit.witness import witness_of

OWNER = Owner("server", 1)
START = datetime(2026, 2, 3, 8, 15, tzinfo=UTC)


class Ticking(Clock):
    """A clock that moves one second with every look at it."""

    def __init__(self) -> None:
        self.start = START
        self._ticks = 0

    def now(self) -> datetime:
        self._ticks += 1
        return self.start + timedelta(seconds=self._ticks)


class Executions:
    """Remembers whose executions were to be cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []
        self.late_one_hangs = False

    async def cancel_all_of(self, workflow_id: int) -> None:
        self.cancelled.append(workflow_id)
        if self.late_one_hangs and self.cancelled.count(workflow_id) > 1:
            await trio.sleep_forever()


class SilentJobs(ScheduleActors):
    """Stands for the actors of scheduled jobs: nobody ticks. `starts`: whether they could."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.starts = True

    def wake(self, job_ids: Iterable[str]) -> None:
        self.woken.extend(job_ids)

    async def start(self, job_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        return self.starts


class CanvasServer(msgspec.Struct, frozen=True, kw_only=True):
    """The server under test, what it published and what it asked for."""

    client: httpx2.AsyncClient
    store: Store
    events: list[tuple[str, str, dict[str, Any]]]
    executions: Executions
    jobs: SilentJobs
    clock: Ticking
    model_lists: ModelLists

    async def call(
        self, method: str, path: str, body: object = None, *, key: str = "bob-key"
    ) -> httpx2.Response:
        """Send one request below `/api/v1`."""
        headers = {"Authorization": f"Bearer {key}"}
        if body is None:
            return await self.client.request(method, f"/api/v1{path}", headers=headers)
        return await self.client.request(method, f"/api/v1{path}", headers=headers, json=body)

    async def made(self, path: str, body: Mapping[str, Any], *, key: str = "bob-key") -> Any:
        """POST something that must be created and return it."""
        response = await self.call("POST", path, body, key=key)
        assert response.status_code == 201, response.text
        return response.json()

    async def workflow(self, slug: str = "flow", *, key: str = "bob-key", **more: object) -> Any:
        """Create a workflow."""
        return await self.made("/workflows/", {"name": slug, "slug": slug, **more}, key=key)

    async def node(self, node_id: str, component_type: str, **more: object) -> Any:
        """Create a node in the workflow `flow`."""
        body = {"node_id": node_id, "component_type": component_type, **more}
        return await self.made("/workflows/flow/nodes/", body)

    async def edge(self, source: str, target: str, **more: object) -> Any:
        """Create an edge in the workflow `flow`."""
        body = {"source_node_id": source, "target_node_id": target, **more}
        return await self.made("/workflows/flow/edges/", body)

    def told(self) -> list[tuple[str, str]]:
        """Return what was published since the last look: channel and type."""
        told = [(channel, kind) for channel, kind, _ in self.events]
        self.events.clear()
        return told


@pytest.fixture
async def canvas(store: Store) -> AsyncIterator[CanvasServer]:
    """A running server on a fresh store in which Ada and Bob exist."""
    await store.write(insert_people)
    events: list[tuple[str, str, dict[str, Any]]] = []
    executions = Executions()
    shared = Canvas(store, lambda *event: events.append(event))
    clock, ids = Ticking(), Ids.seeded(2)
    jobs = SilentJobs()
    lists = ModelLists()
    services = Services(
        WorkflowsService(
            shared,
            clock,
            executions=executions,
            schedules=jobs,
            default_limit=lambda: 900,
            model_lists=lists,
        ),
        NodesService(shared, clock, ids, schedules=jobs),
        EdgesService(shared),
        NodeSchedulesService(shared, clock, ids, owner=OWNER, actors=jobs),
        SchedulesService(store, clock, ids, owner=OWNER, actors=jobs),
    )
    routes = [
        *workflows.ROUTES,
        *nodes.ROUTES,
        *edges.ROUTES,
        *node_schedules.ROUTES,
        *schedules.ROUTES,
    ]
    async with serving(routes, services=services, witness=witness_of(*routes)) as running:
        yield CanvasServer(
            client=running.client,
            store=store,
            events=events,
            executions=executions,
            jobs=jobs,
            clock=clock,
            model_lists=lists,
        )


def insert_people(conn: Connection) -> None:
    """Store Ada and Bob."""
    conn.execute(
        insert(schema.users),
        [
            {"id": who.user_id, "username": who.username, "role": who.role, "created_at": START}
            for who in (ADA, BOB)
        ],
    )
