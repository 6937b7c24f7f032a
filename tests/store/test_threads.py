"""A thread keeps whole exchanges and nothing that no version lists. Contract: engine.md §23.5."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Connection, func, select

from pipelit.store import Store
from pipelit.store.queries import threads
from pipelit.store.schema import checkpoints, thread_messages
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "store", "store_url"]

START = datetime(2026, 1, 1, tzinfo=UTC)


def exchange(number: int) -> threads.ThreadAppend:
    """Return a question, two steps and an answer."""
    roles = ("user", "assistant", "tool", "assistant")
    return threads.ThreadAppend(
        thread_id="1:1",
        namespace="ag",
        source="loop",
        checkpoint_id=f"{number:06}",
        execution_id=None,
        now=START + timedelta(seconds=number),
        messages=tuple((role, {"content": f"{number} {role}"}) for role in roles),
    )


async def test_a_long_thread_drops_whole_exchanges_and_their_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window begins with a user message; its size is that of what it lists."""
    monkeypatch.setattr(threads, "MAX_MESSAGES", 10)

    def fill(conn: Connection) -> None:
        for number in range(40):
            threads.append(conn, exchange(number))

    def look(conn: Connection) -> tuple[list[str], int, int, int]:
        found, _ = threads.history(conn, "1:1", "ag", limit=1000)
        size = conn.scalar(
            select(checkpoints.c.blob_size).order_by(checkpoints.c.checkpoint_id.desc()).limit(1)
        )
        listed = sum(len(msgspec.json.encode(message.message)) for message in found)
        rows = conn.scalar(select(func.count()).select_from(thread_messages))
        return [message.role for message in found], size or 0, listed, rows or 0

    await store.write(fill)
    roles, size, listed, rows = await store.read(look)

    assert roles == ["user", "assistant", "tool", "assistant"] * 2
    assert size == listed
    assert rows == 4 * (threads.KEPT_VERSIONS + 1)
