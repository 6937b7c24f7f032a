"""A server that offers workspaces, with real directories. Import the fixture by name."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.workspaces import WorkspacesService
from pipelit.store import Store
from pipelit.store.queries.workspaces import insert_workspace
from pipelit.web.call import Services
from pipelit.web.routes import workspaces as routes
from tests.kit.canvas import START, Ticking, insert_people
from tests.kit.served import Served
from tests.kit.web_server import serving
from tests.kit.witness import witness_of


class Rooms(Served, frozen=True, kw_only=True):
    """The server under test; workspace 1 is `default`, Ada's, as first-time setup makes it."""

    root: Path
    store: Store

    async def make(self, name: str = "mine", *, key: str = "bob-key", **fields: object) -> Any:
        """Make a workspace, Bob's unless said otherwise."""
        response = await self.call("POST", "/workspaces/", {"name": name, **fields}, key=key)
        assert response.status_code == 201, response.text
        return response.json()


@pytest.fixture
async def rooms(store: Store, tmp_path: Path) -> AsyncIterator[Rooms]:
    """A running server whose data directory is the test's."""
    root = tmp_path / "workspaces"
    await store.write(insert_people)
    default = {"owner_id": 1, "name": "default", "path": str(root / "default")}
    await store.write(lambda conn: insert_workspace(conn, **default, created_at=START))
    services = Services(WorkspacesService(store, Ticking(), WorkspaceDirectories(root)))
    async with serving(
        routes.ROUTES, services=services, witness=witness_of(*routes.ROUTES)
    ) as running:
        yield Rooms(client=running.client, root=root, store=store)
