"""Agent users over a real socket. Contract: users.md."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from pipelit.clock import Clock
from pipelit.store import schema
from tests.kit.accounts import AccountServer, Caller, end_of
from tests.kit.people import ada, olga, otto, problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "server", "store", "store_url"]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
NOT_FOUND = (404, "Agent user not found")
NOT_YOURS = (403, "Only the creator or an admin can delete this agent user.")
GONE = (401, "Invalid or missing API key.")
ADA, OLGA, OTTO = 1, 2, 3
OWNING = {
    "workflows": "owner_id",
    "credentials": "created_by_id",
    "schedules": "user_id",
    "workspaces": "owner_id",
    "epics": "user_id",
}


async def add_agent(server: AccountServer, name: str, creator: int | None, **values: Any) -> Caller:
    """Make an agent user whose key is its name."""
    return await server.add_user(name, kind="agent", created_by_id=creator, **values)


async def names(caller: Caller) -> list[str]:
    """Return the names of all agent users as listed."""
    return [agent["username"] for agent in (await caller.get("/users/agents/")).json()["items"]]


async def test_an_agent_user_is_shown_field_by_field(server: AccountServer, olga: Caller) -> None:
    """The example of the section."""
    await add_agent(server, "agent_invoice-triage_agent_1", OLGA, purpose="Adjust own prompt")

    page = (await olga.get("/users/agents/")).json()

    created_at = page["items"][0]["created_at"]
    assert INSTANT.fullmatch(created_at)
    assert page == {
        "items": [
            {
                "id": 3,
                "username": "agent_invoice-triage_agent_1",
                "purpose": "Adjust own prompt",
                "api_key_preview": "..._agent_1",
                "created_at": created_at,
                "created_by": "olga",
            }
        ],
        "total": 1,
    }


async def test_the_preview_is_of_the_newest_active_key(server: AccountServer, ada: Caller) -> None:
    """Revoked ones do not count; without any it is empty."""
    await add_agent(server, "agent_x_y", ADA)
    made = (await ada.post("/users/2/keys", {"name": "ci"})).json()

    async def preview() -> str:
        page = (await ada.get("/users/agents/")).json()
        return str(page["items"][0]["api_key_preview"])

    assert await preview() == f"...{made['key'][-8:]}"
    await ada.delete(f"/users/2/keys/{made['id']}")
    assert await preview() == "...gent_x_y"
    await server.set_key("test", is_active=False)
    assert await preview() == ""


async def test_everybody_sees_all_agent_users_and_nobody_else(
    server: AccountServer, ada: Caller, olga: Caller, otto: Caller
) -> None:
    """Newest first; never humans or gateway contacts."""
    await server.add_user("contact", kind="gateway")
    first = await add_agent(server, "agent_a_1", OLGA)
    await add_agent(server, "agent_b_1", None)

    for caller in (ada, olga, otto, first):
        assert await names(caller) == ["agent_b_1", "agent_a_1"]
    page = (await otto.get("/users/agents/")).json()
    assert [agent["created_by"] for agent in page["items"]] == [None, "olga"]


async def test_the_list_is_paged(server: AccountServer, olga: Caller) -> None:
    """`total` counts everything."""
    for number in range(3):
        await add_agent(server, f"agent_a_{number}", OLGA)

    page = (await olga.get("/users/agents/?limit=1&offset=1")).json()

    assert ([agent["username"] for agent in page["items"]], page["total"]) == (["agent_a_1"], 3)
    assert (await olga.get("/users/agents/?limit=0")).json() == {"items": [], "total": 3}
    assert problems(await olga.get("/users/agents/?limit=1001&offset=")) == [
        "query.limit: must be <= 1000",
        "query.offset: must be an integer",
    ]


async def test_an_agent_acts_as_its_creator_as_a_normal_user(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """Never with admin powers; it cannot log in."""
    agent = await add_agent(server, "agent_x_y", ADA)

    login = await server.anyone.post("/auth/token/", {"username": "agent_x_y", "password": "x"})

    assert refusal(login) == (401, "Invalid credentials.")
    assert refusal(await agent.get("/users/")) == (403, "Admin access required.")


async def test_creator_and_admin_delete(
    server: AccountServer, ada: Caller, olga: Caller, otto: Caller
) -> None:
    """Others get 403, also an agent of somebody else."""
    await add_agent(server, "agent_a_1", OLGA)
    await add_agent(server, "agent_a_2", OLGA)
    ottos = await add_agent(server, "agent_b_1", OTTO)

    assert refusal(await otto.delete("/users/agents/4/")) == NOT_YOURS
    assert refusal(await ottos.delete("/users/agents/4/")) == NOT_YOURS
    assert (await olga.delete("/users/agents/4/")).status_code == 204
    assert (await ada.delete("/users/agents/5/")).status_code == 204
    assert await names(ada) == ["agent_b_1"]


async def test_an_agent_deletes_what_its_creator_may(server: AccountServer, olga: Caller) -> None:
    """Itself included."""
    agent = await add_agent(server, "agent_a_1", OLGA)

    assert (await agent.delete("/users/agents/3/")).status_code == 204
    assert refusal(await agent.get("/users/me")) == GONE


async def test_an_agent_without_a_creator_is_for_admins(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """Nobody else made it."""
    agent = await add_agent(server, "agent_a_1", None)

    assert refusal(await olga.delete("/users/agents/3/")) == NOT_YOURS
    assert refusal(await agent.delete("/users/agents/3/")) == NOT_YOURS
    assert (await ada.delete("/users/agents/3/")).status_code == 204


@pytest.mark.parametrize("user_id", [0, -1, ADA, OLGA, 4, 99, 2**63 - 1])
async def test_who_is_no_agent_is_not_found(
    server: AccountServer, ada: Caller, otto: Caller, user_id: int
) -> None:
    """Humans, gateway contacts and nobody: one answer, before rights."""
    await server.add_user("contact", kind="gateway")

    for caller in (ada, otto):
        assert refusal(await caller.delete(f"/users/agents/{user_id}/")) == NOT_FOUND


async def test_an_id_is_an_integer(ada: Caller) -> None:
    """Anything else is a problem of the path; the batch is a word."""
    assert problems(await ada.delete("/users/agents/x/")) == ["path.user_id: must be an integer"]
    assert (await ada.delete("/users/agents/batch-delete/")).status_code == 405


async def test_a_deleted_agents_keys_are_unknown_and_its_sockets_close(
    server: AccountServer, olga: Caller
) -> None:
    """From the next request on, though the key was good a moment before."""
    agent = await add_agent(server, "agent_a_1", OLGA)

    async with server.socket("agent_a_1") as socket:
        assert (await agent.get("/users/me")).status_code == 200
        await olga.delete("/users/agents/3/")
        assert refusal(await agent.get("/users/me")) == GONE
        assert await end_of(socket) == (1008, "Invalid or missing token")

    assert await server.store.read(_count_keys) == 2


def _count_keys(conn: Connection) -> int:
    return len(conn.execute(select(schema.api_keys.c.id)).all())


async def own(server: AccountServer, user_id: int, name: str) -> None:
    """Let a user own one thing of each kind."""
    now = Clock().now()
    common = {"created_at": now, "updated_at": now}
    rows: Mapping[str, Mapping[str, Any]] = {
        "workflows": {"name": name, "slug": name, "is_default": True, **common},
        "credentials": {"name": name, "credential_type": "llm", "detail": {}, **common},
        "workspaces": {"name": name, "path": name, "env_vars": [], "created_at": now},
        "epics": {"id": f"ep-{user_id:012}", "title": name, "tags": [], **common},
        "schedules": {
            "id": name,
            "name": name,
            "workflow_id": 1,
            "interval_seconds": 60,
            "next_run_at": now,
            **common,
        },
    }

    def add(conn: Connection) -> int:
        for table, row in rows.items():
            owner = {OWNING[table]: user_id}
            conn.execute(insert(schema.metadata.tables[table]).values(**row, **owner))
        return 0

    await server.store.write(add)


async def owners(server: AccountServer, name: str) -> set[int]:
    """Return who owns the things of a name."""

    def read(conn: Connection) -> set[int]:
        found = set()
        for name_of, column in OWNING.items():
            table = schema.metadata.tables[name_of]
            title = table.c["title" if name_of == "epics" else "name"]
            found |= set(conn.scalars(select(table.c[column]).where(title == name)))
        return found

    return await server.store.read(read)


async def test_what_an_agent_owned_passes_to_its_creator(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """Whoever deletes it; the creator's own things stay as they are."""
    await add_agent(server, "agent_a_1", OLGA)
    await own(server, OLGA, "olgas")
    await own(server, 3, "agents")

    await ada.delete("/users/agents/3/")

    assert await owners(server, "agents") == {OLGA}
    assert await owners(server, "olgas") == {OLGA}
    flows = schema.workflows
    defaults = select(flows.c.name).where(flows.c.is_default)
    assert await server.store.read(lambda conn: list(conn.scalars(defaults))) == ["olgas"]


async def test_without_a_creator_it_passes_to_who_deletes(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """So nothing is nobody's."""
    await add_agent(server, "agent_a_1", None)
    await own(server, 3, "agents")

    await ada.delete("/users/agents/3/")

    assert await owners(server, "agents") == {ADA}


async def test_its_executions_stay(server: AccountServer, olga: Caller) -> None:
    """What it started runs on; it is nobody's then, and the workflow's owner's as before."""
    await add_agent(server, "agent_a_1", OLGA)
    await own(server, OLGA, "olgas")
    now = Clock().now()
    row = {
        "id": "e",
        "created_seq": 1,
        "workflow_id": 1,
        "user_id": 3,
        "thread_id": "3:1",
        "status": "running",
        "source": "chat",
        "trigger": {},
        "limit_seconds": 60,
        "created_at": now,
        "last_activity_at": now,
    }
    table = schema.executions
    await server.store.write(lambda conn: conn.execute(insert(table).values(**row)).rowcount)

    await olga.delete("/users/agents/3/")

    found = await server.store.read(
        lambda conn: conn.execute(select(table.c.user_id, table.c.status)).one()
    )
    assert tuple(found) == (None, "running")


async def test_agents_of_a_deleted_agent_act_for_nobody_from_then_on(
    server: AccountServer, olga: Caller
) -> None:
    """At the next request."""
    await add_agent(server, "agent_a_1", OLGA)
    second = await add_agent(server, "agent_b_1", 3)
    parents = server.with_key("agent_a_1")
    body = {"name": "N", "credential_type": "llm"}
    credential = (await parents.post("/credentials/", body)).json()["id"]
    path = f"/credentials/{credential}/"
    assert (await second.patch(path, {"name": "M"})).status_code == 200

    await olga.delete("/users/agents/3/")

    assert (await second.patch(path, {"name": "L"})).status_code == 403
    assert [a["created_by"] for a in (await olga.get("/users/agents/")).json()["items"]] == [None]


async def test_a_batch_deletes_what_the_caller_may_and_skips_the_rest(
    server: AccountServer, ada: Caller, olga: Caller, otto: Caller
) -> None:
    """Unknown ids, humans, contacts and others' agents; duplicates are one."""
    await add_agent(server, "agent_a_1", OLGA)
    await add_agent(server, "agent_a_2", OLGA)
    await add_agent(server, "agent_b_1", OTTO)
    await server.add_user("contact", kind="gateway")

    answer = await olga.post("/users/agents/batch-delete/", {"ids": [4, 4, 5, 6, 7, 1, 99, -1]})

    assert answer.status_code == 204
    assert answer.content == b""
    assert await names(ada) == ["agent_b_1"]
    assert (await ada.get("/users/")).json()["total"] == 5
    assert refusal(await server.with_key("agent_a_1").get("/users/me")) == GONE
    assert (await ada.post("/users/agents/batch-delete/", {"ids": [6]})).status_code == 204
    assert await names(ada) == []


async def test_a_batch_of_an_agent_and_the_agents_it_made(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """What each owned ends with who is left: the creator of the first."""
    await add_agent(server, "agent_a_1", OLGA)
    await add_agent(server, "agent_b_1", 3)
    await own(server, 3, "first")
    await own(server, 4, "second")

    await ada.post("/users/agents/batch-delete/", {"ids": [3, 4]})

    assert await owners(server, "first") | await owners(server, "second") == {OLGA}


async def test_an_empty_batch_does_nothing(server: AccountServer, olga: Caller) -> None:
    """And is fine."""
    await add_agent(server, "agent_a_1", OLGA)

    answer = await olga.post("/users/agents/batch-delete/", {"ids": []})

    assert answer.status_code == 204
    assert await names(olga) == ["agent_a_1"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["body.ids: field required"]),
        ({"ids": None}, ["body.ids: must not be null"]),
        ({"ids": 3}, ["body.ids: must be an array"]),
        (
            {"ids": [3, "4", True]},
            ["body.ids[1]: must be an integer", "body.ids[2]: must be an integer"],
        ),
        ({"ids": [0] * 1001}, ["body.ids: must have at most 1000 items"]),
    ],
)
async def test_what_a_batch_may_not_be(
    server: AccountServer, olga: Caller, body: dict[str, Any], found: list[str]
) -> None:
    """Nothing is deleted then."""
    await add_agent(server, "agent_a_1", OLGA)

    assert problems(await olga.post("/users/agents/batch-delete/", body)) == found
    assert await names(olga) == ["agent_a_1"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/agents/"),
        ("DELETE", "/users/agents/1/"),
        ("POST", "/users/agents/batch-delete/"),
    ],
)
async def test_nobody_gets_in_without_a_key(server: AccountServer, method: str, path: str) -> None:
    """Every endpoint of the section needs one."""
    answer = await server.client.request(method, f"/api/v1{path}")

    assert refusal(answer) == GONE
