"""memory.md over a real socket: five kinds, listed, filtered and deleted by everybody."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, insert

from pipelit.services.memory import MemoryService
from pipelit.store import Store, schema
from pipelit.store.queries import threads
from pipelit.web.call import Services
from pipelit.web.routes import memory as routes
from tests.kit.served import Served
from tests.kit.store import migrated, store, store_url
from tests.kit.web_server import serving

__all__ = ["migrated", "store", "store_url"]

START = datetime(2026, 1, 20, 7, tzinfo=UTC)
KINDS = ("facts", "episodes", "procedures", "users")
TABLES = {
    "facts": schema.facts,
    "episodes": schema.episodes,
    "procedures": schema.procedures,
    "users": schema.memory_users,
}
REQUIRED: dict[str, dict[str, Any]] = {
    "facts": {"scope": "user", "key": "k", "fact_type": "correction", "updated_at": START},
    "episodes": {"agent_id": "workflow:12", "started_at": START},
    "procedures": {"agent_id": "workflow:12", "name": "N", "procedure_type": "tool_chain"},
    "users": {"first_seen_at": START, "last_seen_at": START},
}


class Memory(Served, frozen=True, kw_only=True):
    """The server under test and what runs would have written."""

    store: Store

    async def add(self, kind: str, number: int = 1, **values: object) -> str:
        """Store a row as a run would; return its id."""
        row = {"id": f"00000000-0000-4000-8000-{number:012}", "created_at": START}
        row |= {"canonical_id": f"gw:{number}"} if kind == "users" else {}
        row |= REQUIRED[kind] | values
        await self.store.write(
            lambda conn: conn.execute(insert(TABLES[kind]).values(**row)).rowcount
        )
        return str(row["id"])

    async def ids(self, path: str) -> list[int]:
        """Return the numbers of what a list shows, in its order."""
        return [int(item["id"][-12:]) for item in (await self.get(path))["items"]]

    async def append(self, number: int, *texts: str, thread: str = "3:12", ns: str = "") -> str:
        """Add messages to a thread as version *number*; return the version's id."""
        change = threads.ThreadAppend(
            thread_id=thread,
            namespace=ns,
            source="input",
            checkpoint_id=f"01900000-0000-7000-8000-{number:012}",
            execution_id=None,
            now=START + timedelta(seconds=number),
            messages=tuple(("user", {"content": text}) for text in texts),
        )
        await self.store.write(lambda conn: threads.append(conn, change))
        return change.checkpoint_id

    async def history(self, thread: str = "3:12", ns: str = "") -> list[str]:
        """Return the texts that a conversation consists of now."""

        def query(conn: Connection) -> list[str]:
            found, _ = threads.history(conn, thread, ns, limit=100)
            return [message.message["content"] for message in found]

        return await self.store.read(query)


@pytest.fixture
async def memory(store: Store) -> AsyncIterator[Memory]:
    """A running server on a fresh store."""
    services = Services(MemoryService(store))
    async with serving(routes.ROUTES, services=services) as running:
        yield Memory(client=running.client, store=store)


async def test_a_fact_is_shown_field_by_field(memory: Memory) -> None:
    """The example of the section; what the contract does not name stays inside."""
    identity = await memory.add(
        "facts",
        user_id="gw:88120",
        key="invoice_language",
        value={"code": "de"},
        fact_type="user_preference",
        times_confirmed=2,
        access_count=5,
        updated_at=datetime(2026, 2, 1, 7, 30, tzinfo=UTC),
    )

    assert await memory.get("/memories/facts/?scope=user&limit=1") == {
        "items": [
            {
                "id": identity,
                "scope": "user",
                "agent_id": None,
                "user_id": "gw:88120",
                "key": "invoice_language",
                "value": {"code": "de"},
                "fact_type": "user_preference",
                "confidence": 1.0,
                "times_confirmed": 2,
                "access_count": 5,
                "created_at": "2026-01-20T07:00:00",
                "updated_at": "2026-02-01T07:30:00",
            }
        ],
        "total": 1,
    }


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [1, None], {"a": {"b": []}}])
async def test_a_fact_may_be_any_json(memory: Memory, value: object) -> None:
    """What was remembered comes back as it was."""
    await memory.add("facts", value=value)

    assert (await memory.get("/memories/facts/"))["items"][0]["value"] == value


async def test_an_episode_is_shown_field_by_field(memory: Memory) -> None:
    """While it runs: no end, no duration, no success."""
    identity = await memory.add("episodes", execution_id="e-1", detail={"hidden": 1})

    assert (await memory.get("/memories/episodes/"))["items"] == [
        {
            "id": identity,
            "agent_id": "workflow:12",
            "user_id": None,
            "trigger_type": "",
            "success": False,
            "error_code": None,
            "summary": None,
            "started_at": "2026-01-20T07:00:00",
            "ended_at": None,
            "duration_ms": None,
            "created_at": "2026-01-20T07:00:00",
        }
    ]


@pytest.mark.parametrize(
    ("used", "succeeded", "rate"), [(0, 0, 0.5), (3, 2, 0.667), (1, 1, 1.0), (7, 0, 0.0)]
)
async def test_a_procedure_is_shown_with_its_success_rate(
    memory: Memory, used: int, succeeded: int, rate: float
) -> None:
    """Three decimals; one half when it was never used. Inactive ones are listed too."""
    counted = {
        "times_used": used,
        "times_succeeded": succeeded,
        "times_failed": used - succeeded,
        "is_active": False,
    }
    identity = await memory.add("procedures", **counted)

    assert (await memory.get("/memories/procedures/"))["items"] == [
        {
            "id": identity,
            "agent_id": "workflow:12",
            "name": "N",
            "description": "",
            "procedure_type": "tool_chain",
            "success_rate": rate,
            "created_at": "2026-01-20T07:00:00",
            **counted,
        }
    ]


async def test_a_memory_user_is_shown_field_by_field(memory: Memory) -> None:
    """Preferences and the first encounter stay inside."""
    identity = await memory.add("users", display_name="Mara", total_conversations=4)

    assert (await memory.get("/memories/users/"))["items"] == [
        {
            "id": identity,
            "canonical_id": "gw:1",
            "display_name": "Mara",
            "telegram_id": None,
            "email": None,
            "total_conversations": 4,
            "last_seen_at": "2026-01-20T07:00:00",
            "created_at": "2026-01-20T07:00:00",
        }
    ]


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


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("facts", "updated_at"),
        ("episodes", "started_at"),
        ("procedures", "created_at"),
        ("users", "last_seen_at"),
    ],
)
async def test_each_list_has_its_order(memory: Memory, kind: str, column: str) -> None:
    """The latest first, ties by id, newest first; paged with the real total."""
    for number, hours in ((1, 0), (2, 2), (3, 1), (4, 1)):
        await memory.add(kind, number, **{column: START + timedelta(hours=hours)})

    assert await memory.ids(f"/memories/{kind}/") == [2, 4, 3, 1]
    assert await memory.ids(f"/memories/{kind}/?limit=2&offset=1") == [4, 3]
    assert await memory.get(f"/memories/{kind}/?limit=0") == {"items": [], "total": 4}
    assert (await memory.get(f"/memories/{kind}/?offset=9"))["items"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("scope=user", [3, 1]),
        ("scope=User", []),
        ("scope=whatever", []),
        ("scope=&fact_type=", [3, 2, 1]),
        ("fact_type=correction", [2, 1]),
        ("scope=user&fact_type=correction", [1]),
        ("what=1", [3, 2, 1]),
    ],
)
async def test_facts_are_filtered_exactly(memory: Memory, query: str, found: list[int]) -> None:
    """Free text, case-sensitive; AND between filters; an empty one is none."""
    await memory.add("facts", 1)
    await memory.add("facts", 2, scope="global")
    await memory.add("facts", 3, fact_type="own")

    assert await memory.ids(f"/memories/facts/?{query}") == found


@pytest.mark.parametrize("kind", ["episodes", "procedures"])
async def test_an_agent_filters_its_own(memory: Memory, kind: str) -> None:
    """Exactly its id."""
    await memory.add(kind, 1)
    await memory.add(kind, 2, agent_id="workflow:1")

    assert await memory.ids(f"/memories/{kind}/?agent_id=workflow:1") == [2]
    assert await memory.ids(f"/memories/{kind}/?agent_id=workflow") == []
    assert (await memory.get(f"/memories/{kind}/?agent_id=workflow:12"))["total"] == 1


async def test_a_thread_filters_its_checkpoints(memory: Memory) -> None:
    """With all its namespaces."""
    await memory.append(1, "a", thread="3:1")
    await memory.append(2, "b", thread="3:12")
    await memory.append(3, "c", thread="3:12", ns="agent_1")

    page = await memory.get("/memories/checkpoints/?thread_id=3:12&limit=1")

    assert (page["total"], page["items"][0]["checkpoint_ns"]) == (2, "agent_1")
    assert (await memory.get("/memories/checkpoints/?thread_id="))["total"] == 3
    assert (await memory.get("/memories/checkpoints/?thread_id=3:"))["total"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["ada-key", "bob-key"])
async def test_everybody_may_delete(memory: Memory, kind: str, key: str) -> None:
    """Those that exist go for ever; unknown ids are skipped, duplicates are one."""
    ids = [await memory.add(kind, number) for number in (1, 2, 3)]
    body = {"ids": [ids[0], "unknown", ids[2], ids[0]]}

    response = await memory.call("POST", f"/memories/{kind}/batch-delete/", body, key=key)

    assert (response.status_code, response.content) == (204, b"")
    assert await memory.ids(f"/memories/{kind}/") == [2]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_list_deletes_nothing(memory: Memory, kind: str) -> None:
    """It is accepted."""
    await memory.add(kind)

    response = await memory.call("POST", f"/memories/{kind}/batch-delete/", {"ids": []})

    assert response.status_code == 204
    assert await memory.ids(f"/memories/{kind}/") == [1]


async def test_a_deleted_user_leaves_what_names_it(memory: Memory) -> None:
    """Facts and episodes stay."""
    user = await memory.add("users")
    await memory.add("facts", user_id="gw:1")
    await memory.add("episodes", user_id="gw:1")

    await memory.call("POST", "/memories/users/batch-delete/", {"ids": [user]})

    assert (await memory.get("/memories/facts/"))["items"][0]["user_id"] == "gw:1"
    assert (await memory.get("/memories/episodes/"))["items"][0]["user_id"] == "gw:1"


DELETE = "/memories/checkpoints/batch-delete/"


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


@pytest.mark.parametrize(
    ("path", "body", "problems"),
    [
        *(
            (f"/memories/{kind}/batch-delete/", body, problems)
            for kind in KINDS
            for body, problems in (
                ({}, ["body.ids: field required"]),
                ({"ids": None}, ["body.ids: must not be null"]),
                ({"ids": [1]}, ["body.ids[0]: must be a string"]),
                ({"ids": ["x"] * 1001}, ["body.ids: must have at most 1000 items"]),
            )
        ),
        (DELETE, {}, ["body: at least one of thread_ids, checkpoint_ids is required"]),
        (
            DELETE,
            {"thread_ids": None, "checkpoint_ids": None},
            ["body: at least one of thread_ids, checkpoint_ids is required"],
        ),
        (
            DELETE,
            {"thread_ids": ["x"] * 1001, "checkpoint_ids": "x"},
            [
                "body.thread_ids: must have at most 1000 items",
                "body.checkpoint_ids: must be an array",
            ],
        ),
    ],
)
async def test_a_wrong_body_is_explained(
    memory: Memory, path: str, body: dict[str, Any], problems: list[str]
) -> None:
    """All problems come together in the contract's words."""
    refused = await memory.refused("POST", path, body)

    assert refused == (422, {"validation_errors": problems})


@pytest.mark.parametrize("kind", [*KINDS, "checkpoints"])
async def test_paging_is_checked(memory: Memory, kind: str) -> None:
    """As in every list."""
    refused = await memory.refused("GET", f"/memories/{kind}/?limit=1001&offset=x")

    problems = ["query.limit: must be <= 1000", "query.offset: must be an integer"]
    assert refused == (422, {"validation_errors": problems})


@pytest.mark.parametrize("kind", [*KINDS, "checkpoints"])
async def test_nobody_enters_without_a_key(memory: Memory, kind: str) -> None:
    """Every route wants a Bearer token."""
    for method, path in (("GET", ""), ("POST", "batch-delete/")):
        refused = await memory.refused(method, f"/memories/{kind}/{path}", key="wrong")

        assert refused == (401, "Invalid or missing API key.")
