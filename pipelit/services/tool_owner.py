"""For whom a platform tool acts: the owner of its workflow, as a normal user.

Contract: node-types.md §1 "Owner".
"""

from functools import partial

import msgspec
from sqlalchemy import Connection

from pipelit.errors import Forbidden, NotFound
from pipelit.nodes.json_tools import Acting
from pipelit.services.agent_lookup import find_workflow_principal
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries.users import find_user

OWNER_DISABLED = "The account of the workflow's owner is disabled"


def get_acting(conn: Connection, acting: Acting) -> Principal:
    """Return the owner without admin powers: an agent may be talked into anything.

    Raises:
        NotFound: the workflow is gone.
        Forbidden: the owner is disabled, or is the agent of somebody who is.
    """
    owner = find_workflow_principal(conn, acting.workflow_id)
    if owner is None:
        raise NotFound("Workflow not found")
    for user_id in (owner.user_id, owner.acts_for):
        user = None if user_id is None else find_user(conn, user_id)
        if user is not None and not user.is_active:
            raise Forbidden(OWNER_DISABLED)
    return msgspec.structs.replace(owner, role="normal")


async def load_acting(store: Store, acting: Acting) -> Principal:
    """Return the owner, from what is committed.

    Raises:
        NotFound: the workflow is gone.
        Forbidden: the owner is disabled.
    """
    return await store.read(partial(get_acting, acting=acting))
