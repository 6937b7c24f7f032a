"""The short form of an execution is cheap to ask for. Contract: beyond.md §2."""

from typing import Any, cast

import pytest
from sqlalchemy import Connection, event

from pipelit.errors import NotFound
from pipelit.services.executions import ExecutionsService
from pipelit.services.principal import Principal
from pipelit.store import Store
from tests.kit.store import migrated, store, store_url
from tests.services.conftest import HandClock
from tests.services.test_live_rights import add_admin

__all__ = ["migrated", "store", "store_url"]

ADMIN = Principal(user_id=2, username="ada", role="admin", key_id=1)


async def test_the_status_reads_no_logs(store: Store, clock: HandClock) -> None:
    """They may be many megabytes, and who polls does not want them."""
    await add_admin(store, clock)
    asked: list[str] = []
    service = ExecutionsService(store, cast("Any", None), manager=cast("Any", None))

    def listen(conn: Connection, cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(store._read_engine, "before_cursor_execute", listen)
    status = await service.get_status(ADMIN, "e")

    assert (status.execution_id, status.workflow, status.status) == ("e", "f", "running")
    assert asked
    assert not any("execution_logs" in statement for statement in asked)
    with pytest.raises(NotFound):
        await service.get_status(ADMIN, "unknown")
