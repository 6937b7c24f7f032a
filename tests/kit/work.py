"""A server that offers epics and tasks, on a real store and socket.

Import the fixture where it is wanted: `from tests.kit.work import work`. Ada is an admin, Bob is
not; their keys are those of `tests.kit.web_server`.
"""

from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from pipelit.actors.turns import Subjects, Turns
from pipelit.clock import Ids
from pipelit.services.epics import EpicsService
from pipelit.services.principal import Principal
from pipelit.services.tasks import TasksService
from pipelit.store import Store
from pipelit.web.call import Services
from pipelit.web.routes import epics, tasks
from tests.kit.canvas import Ticking, insert_people
from tests.kit.served import Served
from tests.kit.web_server import serving
from tests.kit.witness import witness_of


class LinkedExecutions:
    """Remembers which executions were to be cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    async def cancel_each(self, principal: Principal, execution_ids: Collection[str]) -> None:
        self.cancelled.extend(execution_ids)


class WorkServer(Served, frozen=True, kw_only=True):
    """The server under test, what it published and what it asked for."""

    store: Store
    events: list[tuple[str, str, dict[str, Any]]]
    executions: LinkedExecutions

    async def epic(self, **fields: object) -> Any:
        """Create an epic and forget what was told."""
        return await self._made("/epics/", {"title": "E", **fields})

    async def task(self, epic: Any, *depends_on: Any, **fields: object) -> Any:
        """Create a task that depends on these tasks, and forget what was told."""
        ids = [task["id"] for task in depends_on]
        body = {"epic_id": epic["id"], "title": "T", "depends_on": ids, **fields}
        return await self._made("/tasks/", body)

    async def change(self, thing: Any, **fields: object) -> Any:
        """Change an epic or a task."""
        section = "epics" if thing["id"].startswith("ep-") else "tasks"
        response = await self.call("PATCH", f"/{section}/{thing['id']}/", fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def again(self, thing: Any) -> Any:
        """Return an epic or a task as it is now."""
        section = "epics" if thing["id"].startswith("ep-") else "tasks"
        return await self.get(f"/{section}/{thing['id']}/")

    def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return what was published since the last look: channel, type, data."""
        told = list(self.events)
        self.events.clear()
        return told

    async def _made(self, path: str, body: object) -> Any:
        response = await self.call("POST", path, body)
        assert response.status_code == 201, response.text
        self.events.clear()
        return response.json()


@pytest.fixture
async def work(store: Store) -> AsyncIterator[WorkServer]:
    """A running server on a fresh store in which Ada and Bob exist."""
    await store.write(insert_people)
    events: list[tuple[str, str, dict[str, Any]]] = []
    turns = Turns(store, lambda *event: events.append(event), Subjects())
    executions, clock, ids = LinkedExecutions(), Ticking(), Ids.seeded(3)
    services = Services(
        EpicsService(store, turns, clock, ids, executions=executions),
        TasksService(store, turns, clock, ids),
    )
    async with serving(
        [*epics.ROUTES, *tasks.ROUTES],
        services=services,
        witness=witness_of(*epics.ROUTES, *tasks.ROUTES),
    ) as running:
        yield WorkServer(client=running.client, store=store, events=events, executions=executions)
