"""For whom a platform tool acts: the owner of its workflow, as a normal user.

Contract: node-types.md §1 "Owner".
"""

from functools import partial

import msgspec
from sqlalchemy import Connection

from pipelit.errors import NotFound
from pipelit.nodes.json_tools import Acting
from pipelit.services.agent_lookup import find_workflow_principal
from pipelit.services.principal import Principal
from pipelit.store import Store


def get_acting(conn: Connection, acting: Acting) -> Principal:
    """Return the owner without admin powers: an agent may be talked into anything.

    Raises:
        NotFound: the workflow is gone.
    """
    owner = find_workflow_principal(conn, acting.workflow_id)
    if owner is None:
        raise NotFound("Workflow not found")
    return msgspec.structs.replace(owner, role="normal")


async def load_acting(store: Store, acting: Acting) -> Principal:
    """Return the owner, from what is committed.

    Raises:
        NotFound: the workflow is gone.
    """
    return await store.read(partial(get_acting, acting=acting))
