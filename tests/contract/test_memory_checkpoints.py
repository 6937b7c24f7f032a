"""memory.md over a real socket: the stored versions of conversations."""

from typing import Any

import msgspec
import pytest

from tests.kit.memory import Memory, memory
from tests.kit.store import migrated, store, store_url

__all__ = ["memory", "migrated", "store", "store_url"]

DELETE = "/memories/checkpoints/batch-delete/"


async def test_a_checkpoint_is_shown_field_by_field(memory: Memory) -> None:
    """A chain per namespace: the first has no parent and step −1; the newest is listed first."""
    first = await memory.append(1, "hi")
    second = await memory.append(2, "there")
    inner = await memory.append(3, "x", ns="agent_1")

    page = await memory.get("/memories/checkpoints/")

    def shown(checkpoint_id: str, **more: object) -> dict[str, object]:
        same = {"thread_id": "3:12", "checkpoint_ns": "", "source": "input"}
        return {"checkpoint_id": checkpoint_id, **same, **more}

    size = [len(msgspec.json.encode({"content": text})) for text in ("hi", "there", "x")]
    assert page == {
        "items": [
            shown(
                inner,
                checkpoint_ns="agent_1",
                parent_checkpoint_id=None,
                step=-1,
                blob_size=size[2],
            ),
            shown(second, parent_checkpoint_id=first, step=0, blob_size=size[0] + size[1]),
            shown(first, parent_checkpoint_id=None, step=-1, blob_size=size[0]),
        ],
        "total": 3,
    }


async def test_a_thread_filters_its_checkpoints(memory: Memory) -> None:
    """With all its namespaces."""
    await memory.append(1, "a", thread="3:1")
    await memory.append(2, "b", thread="3:12")
    await memory.append(3, "c", thread="3:12", ns="agent_1")

    page = await memory.get("/memories/checkpoints/?thread_id=3:12&limit=1")

    assert (page["total"], page["items"][0]["checkpoint_ns"]) == (2, "agent_1")
    assert (await memory.get("/memories/checkpoints/?thread_id="))["total"] == 3
    assert (await memory.get("/memories/checkpoints/?thread_id=3:"))["total"] == 0


async def test_without_its_newest_version_a_conversation_is_what_it_was_before(
    memory: Memory,
) -> None:
    """The state falls back, and the next message does not bring back what was deleted."""
    await memory.append(1, "one")
    await memory.append(2, "two")
    third = await memory.append(3, "three")

    response = await memory.call("POST", DELETE, {"checkpoint_ids": [third, third, "unknown"]})

    assert response.status_code == 204
    assert await memory.history() == ["one", "two"]
    await memory.append(4, "four")
    assert await memory.history() == ["one", "two", "four"]


async def test_deleting_an_older_version_changes_no_state(memory: Memory) -> None:
    """Later versions list its messages too."""
    first = await memory.append(1, "one")
    await memory.append(2, "two")

    await memory.call("POST", DELETE, {"checkpoint_ids": [first]})

    assert await memory.history() == ["one", "two"]
    assert (await memory.get("/memories/checkpoints/"))["total"] == 1


async def test_without_any_version_a_conversation_is_forgotten(memory: Memory) -> None:
    """Other namespaces of the thread stay."""
    ids = [await memory.append(1, "one"), await memory.append(2, "two")]
    await memory.append(3, "inner", ns="agent_1")

    await memory.call("POST", DELETE, {"checkpoint_ids": ids})

    assert await memory.history() == []
    assert await memory.history(ns="agent_1") == ["inner"]
    await memory.append(4, "new")
    assert await memory.history() == ["new"]


async def test_a_thread_is_deleted_with_all_its_namespaces(memory: Memory) -> None:
    """Threads and versions given together are both deleted, other threads are not."""
    await memory.append(1, "a", thread="3:1")
    await memory.append(2, "b", thread="3:1", ns="agent_1")
    await memory.append(3, "c", thread="3:2")
    single = await memory.append(4, "d", thread="3:2")
    await memory.append(5, "e", thread="3:3")

    body = {"thread_ids": ["3:1", "unknown"], "checkpoint_ids": [single]}
    response = await memory.call("POST", DELETE, body)

    assert response.status_code == 204
    assert await memory.history("3:1") == await memory.history("3:1", "agent_1") == []
    assert await memory.history("3:2") == ["c"]
    assert await memory.history("3:3") == ["e"]


@pytest.mark.parametrize(
    "body",
    [
        {"thread_ids": []},
        {"checkpoint_ids": [], "thread_ids": None},
        {"checkpoint_ids": [], "thread_ids": []},
    ],
)
async def test_given_lists_may_be_empty(memory: Memory, body: dict[str, Any]) -> None:
    """Nothing is deleted."""
    await memory.append(1, "a")

    assert (await memory.call("POST", DELETE, body)).status_code == 204
    assert await memory.history() == ["a"]
