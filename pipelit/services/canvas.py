"""The canvas of a workflow: who may look and draw, and how what was drawn is told.

Contract: README.md §9, websocket.md "Canvas".
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection

from pipelit.actors.turns import News, Publish, Subjects, Turns
from pipelit.errors import Forbidden, NotFound
from pipelit.services import visibility
from pipelit.services.principal import Principal
from pipelit.store import Store, Unit
from pipelit.store.queries.workflows import WorkflowRow, find_workflow

WORKFLOW_NOT_FOUND = "Workflow not found."
NOT_YOURS = "You do not have permission to modify this workflow."

_T = TypeVar("_T")


class CanvasEvent(msgspec.Struct, frozen=True):
    """Something to tell those who look at the workflow called `slug`."""

    slug: str
    type: str
    data: dict[str, Any]


class Canvas:
    """Reads and changes workflows, and tells the changes of each in the order of their commits.

    Shared by the services of the workflows, nodes and edges sections.
    """

    def __init__(self, store: Store, publish: Publish) -> None:
        self._store = store
        self._turns = Turns(store, publish, Subjects())

    async def read(self, query: Unit[_T]) -> _T:
        """Run *query* on what is committed."""
        return await self._store.read(query)

    async def write(
        self, slug: str, unit: Unit[_T], tell: Callable[[_T], Iterable[CanvasEvent]]
    ) -> _T:
        """Commit *unit*, a change of the workflow *slug*, then publish what *tell* makes of it.

        What the unit raises is raised here, and nothing is told.
        """

        def tell_channels(result: _T) -> Iterator[News]:
            for event in tell(result):
                yield News(f"workflow:{event.slug}", event.type, event.data)

        return await self._turns.write([f"workflow:{slug}"], unit, tell_channels)


def get_readable(conn: Connection, principal: Principal, slug: str) -> WorkflowRow:
    """Return the workflow if *principal* may read it.

    Raises:
        NotFound: there is none, or none that the caller may see.
    """
    row = find_workflow(conn, slug)
    if row is None or not can_read(principal, row):
        raise NotFound(WORKFLOW_NOT_FOUND)
    return row


def get_changeable(conn: Connection, principal: Principal, slug: str) -> WorkflowRow:
    """Return the workflow if *principal* may change it.

    Raises:
        NotFound: as `get_readable`.
        Forbidden: it is public, but somebody else's.
    """
    row = get_readable(conn, principal, slug)
    require_change(principal, row)
    return row


def require_change(principal: Principal, row: WorkflowRow) -> None:
    """Let *principal* change the workflow it may read, after its target was found.

    Raises:
        Forbidden: it is public, but somebody else's.
    """
    if not visibility.can_change_workflow(principal, row.owner_id):
        raise Forbidden(NOT_YOURS)


def can_read(principal: Principal, row: WorkflowRow) -> bool:
    """Whether *principal* may read the workflow."""
    return visibility.can_read_workflow(principal, row.owner_id, row.is_public)
