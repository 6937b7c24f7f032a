"""memory.md over a real socket: facts, episodes, procedures, users."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kit.memory import START, Memory, memory
from tests.kit.store import migrated, store, store_url

__all__ = ["memory", "migrated", "store", "store_url"]

KINDS = ("facts", "episodes", "procedures", "users")
DELETE = "/memories/checkpoints/batch-delete/"


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
