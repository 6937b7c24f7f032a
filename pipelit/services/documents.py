"""What a document may refer to besides itself: models of stored credentials, stored workflows.

Contract: engine.md §27.4, §27.6.
"""

from sqlalchemy import Connection

from pipelit.engine.dsl import (
    Caller,
    Catalogue,
    Checked,
    FindSource,
    LlmCredential,
    Source,
    check_document,
)
from pipelit.services.canvas import can_read
from pipelit.services.model_lists import ModelLists
from pipelit.services.principal import Principal
from pipelit.store.queries.credentials import list_credentials
from pipelit.store.queries.edges import list_edges
from pipelit.store.queries.nodes import list_nodes
from pipelit.store.queries.workflows import find_workflow

_DEFAULT_PROVIDER = "openai_compatible"
_MAX_CREDENTIALS = 1000


def check_stored(
    conn: Connection,
    text: str,
    lists: ModelLists,
    principal: Principal | None,
    caller: Caller | None = None,
) -> Checked:
    """Tell whether a document compiles; takes a while, so in no event loop.

    Args:
        principal: whose workflows it may fork; None: nobody's.
        caller: the agent that asks, if one does.
    """
    catalogue = load_catalogue(conn, lists, caller)
    return check_document(text, catalogue, source_finder(conn, principal))


def load_catalogue(conn: Connection, lists: ModelLists, caller: Caller | None = None) -> Catalogue:
    """Load what a model spec may resolve to. No provider is called."""
    rows, _ = list_credentials(conn, limit=_MAX_CREDENTIALS, offset=0)
    credentials = tuple(
        LlmCredential(
            id=row.id,
            provider_type=row.detail.clear.get("provider_type", _DEFAULT_PROVIDER),
            models=lists.find(row.id, row.updated_at),
        )
        for row in rows
        if row.credential_type == "llm"
    )
    return Catalogue(credentials=credentials, caller=caller)


def source_finder(conn: Connection, principal: Principal | None) -> FindSource:
    """Return what finds the workflows that *principal* may fork, inside the same transaction."""

    def find(slug: str) -> Source | None:
        row = find_workflow(conn, slug)
        if row is None or principal is None or not can_read(principal, row):
            return None
        return Source(
            name=row.name,
            description=row.description,
            tags=tuple(row.tags or ()),
            nodes=tuple(list_nodes(conn, row.id)),
            edges=tuple(list_edges(conn, row.id)),
        )

    return find
