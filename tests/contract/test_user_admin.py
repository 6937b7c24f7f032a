"""User administration over a real socket. Contract: beyond.md §8."""

from typing import Any

import httpx2
import pytest
import trio

from tests.kit.accounts import AccountServer, Caller, end_of
from tests.kit.people import ada, olga, otto, problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "server", "store", "store_url"]

EVE = {"username": "eve", "password": "battery staple"}
NOT_FOUND = (404, "User not found.")
NO_KEY = (404, "API key not found.")
ADMINS_ONLY = (403, "Admin access required.")
NOT_HUMAN = (409, "Not a human account.")
LAST_DEMOTED = (409, "Cannot demote the last admin user.")
LAST_DELETED = (409, "Cannot delete the last admin user.")
REVOKED = (401, "API key has been revoked.")
ROUTES = [
    ("GET", "/users/"),
    ("POST", "/users/"),
    ("GET", "/users/1"),
    ("PATCH", "/users/1"),
    ("DELETE", "/users/1"),
    ("GET", "/users/1/keys"),
    ("POST", "/users/1/keys"),
    ("DELETE", "/users/1/keys/1"),
]


async def create(admin: Caller, **fields: Any) -> dict[str, Any]:
    answer = await admin.post("/users/", {**EVE, **fields})
    assert answer.status_code == 201
    created: dict[str, Any] = answer.json()
    return created


async def test_a_created_user_is_shown_field_by_field(server: AccountServer, ada: Caller) -> None:
    """Normal, active, without keys; it can log in."""
    created = await create(ada)

    assert created == {
        "id": 2,
        "username": "eve",
        "role": "normal",
        "first_name": "",
        "last_name": "",
        "created_at": created["created_at"],
        "mfa_enabled": False,
        "key_count": 0,
        "is_active": True,
        "is_agent": False,
    }
    assert (await ada.get("/users/2")).json() == created
    eve = server.with_key(await server.log_in("eve", EVE["password"]))
    assert (await eve.get("/users/me")).json() == {**created, "key_count": 1}


async def test_all_fields_can_be_given(ada: Caller) -> None:
    """Role and names."""
    created = await create(ada, role="admin", first_name="E", last_name="V", id=9, key_count=4)

    assert (created["id"], created["role"]) == (2, "admin")
    assert (created["first_name"], created["last_name"]) == ("E", "V")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["body.password: field required", "body.username: field required"]),
        (
            {"username": "x" * 151, "password": "x" * 7, "role": "root", "first_name": None},
            [
                "body.first_name: must not be null",
                "body.password: must be at least 8 characters",
                "body.role: must be one of: admin, normal",
                "body.username: must be at most 150 characters",
            ],
        ),
        (
            {"username": "", "password": "x" * 1025, "last_name": "x" * 151},
            [
                "body.last_name: must be at most 150 characters",
                "body.password: must be at most 1024 characters",
                "body.username: must be at least 1 characters",
            ],
        ),
        ({**EVE, "username": " eve"}, [r"body.username: must match ^\S(.*\S)?$"]),
        ({**EVE, "username": "e\tve"}, ["body.username: must be valid text"]),
    ],
)
async def test_what_a_user_may_not_be(ada: Caller, body: dict[str, Any], found: list[str]) -> None:
    """All problems are told together; a name follows the rule of the first user's."""
    assert sorted(problems(await ada.post("/users/", body))) == found


async def test_a_name_is_taken_once(ada: Caller) -> None:
    """Also by a disabled user; another case is another name."""
    taken = (409, "Username already exists.")
    await create(ada)
    assert refusal(await ada.post("/users/", EVE)) == taken
    await ada.delete("/users/2")

    assert refusal(await ada.post("/users/", EVE)) == taken
    assert (await create(ada, username="Eve"))["username"] == "Eve"


async def test_of_two_users_with_one_name_one_is_made(ada: Caller) -> None:
    """Together as well as one after the other."""
    statuses: list[int] = []

    async def attempt() -> None:
        statuses.append((await ada.post("/users/", EVE)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(attempt)

    assert sorted(statuses) == [201, 409, 409]


async def test_the_list_holds_every_kind_of_user(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """Humans, agents and gateway contacts, by id; disabled ones too."""
    await server.add_user("agent_x_y", kind="agent", created_by_id=2)
    await server.add_user("contact", kind="gateway", is_active=False)

    page = (await ada.get("/users/")).json()

    assert page["total"] == 4
    assert [(u["id"], u["username"], u["is_agent"], u["is_active"]) for u in page["items"]] == [
        (1, "ada", False, True),
        (2, "olga", False, True),
        (3, "agent_x_y", True, True),
        (4, "contact", False, False),
    ]
    middle = (await ada.get("/users/?limit=2&offset=1")).json()
    assert middle == {"items": page["items"][1:3], "total": 4}
    assert (await ada.get("/users/?limit=0")).json() == {"items": [], "total": 4}
    assert problems(await ada.get("/users/?limit=1001&offset=-1")) == [
        "query.limit: must be <= 1000",
        "query.offset: must be >= 0",
    ]


async def test_a_user_changes_what_is_sent(ada: Caller, olga: Caller) -> None:
    """Null and absent are unchanged."""
    before = (await ada.get("/users/2")).json()
    changed = await ada.patch("/users/2", {"first_name": "Olga", "role": None, "is_active": None})

    assert (changed.status_code, changed.json()) == (200, {**before, "first_name": "Olga"})
    assert (await ada.patch("/users/2", {})).json() == changed.json()
    assert sorted(problems(await ada.patch("/users/2", {"role": "x", "is_active": 1}))) == [
        "body.is_active: must be a boolean",
        "body.role: must be one of: admin, normal",
    ]


async def test_a_new_role_counts_from_the_next_request(ada: Caller, olga: Caller) -> None:
    """Up and down, though the key was used a moment before."""
    assert refusal(await olga.get("/users/")) == ADMINS_ONLY
    assert (await ada.patch("/users/2", {"role": "admin"})).json()["role"] == "admin"
    assert (await olga.get("/users/")).status_code == 200
    await ada.patch("/users/2", {"role": "normal"})
    assert refusal(await olga.get("/users/")) == ADMINS_ONLY


async def test_a_new_role_closes_no_socket(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """Rights are evaluated at delivery; the connection stays."""
    async with server.socket("olga") as socket:
        await ada.patch("/users/2", {"role": "admin"})
        await socket.send_message('{"type": "subscribe", "channel": "epic:x"}')
        with trio.fail_after(1):
            assert "subscribed" in await socket.get_message()


async def test_a_password_set_by_an_admin_ends_every_session(
    server: AccountServer, ada: Caller
) -> None:
    """Other keys stay."""
    await create(ada)
    session = server.with_key(await server.log_in("eve", EVE["password"]))
    key = (await session.post("/users/me/keys", {"name": "ci"})).json()["key"]

    await ada.patch("/users/2", {"password": "another one"})

    assert refusal(await session.get("/auth/me/")) == REVOKED
    assert (await server.with_key(key).get("/auth/me/")).status_code == 200
    assert len(await server.log_in("eve", "another one")) == 43


async def test_my_own_password_set_as_an_admin_keeps_the_session_that_asks(
    server: AccountServer, ada: Caller
) -> None:
    """The door makes no difference."""
    asking = server.with_key(await server.log_in())

    await asking.patch("/users/1", {"password": "battery staple"})

    assert (await asking.get("/auth/me/")).status_code == 200


async def disable_by_delete(admin: Caller, user_id: int) -> httpx2.Response:
    return await admin.delete(f"/users/{user_id}")


async def disable_by_patch(admin: Caller, user_id: int) -> httpx2.Response:
    return await admin.patch(f"/users/{user_id}", {"is_active": False})


@pytest.mark.parametrize("disable", [disable_by_delete, disable_by_patch])
async def test_a_disabled_user_is_out_and_its_things_stay(
    server: AccountServer, ada: Caller, disable: Any
) -> None:
    """Keys are revoked, sockets close, login is refused; the row and what it owns stay."""
    await create(ada)
    session = await server.log_in("eve", EVE["password"])
    eve = server.with_key(session)
    await eve.post("/credentials/", {"name": "N", "credential_type": "llm"})

    async with server.socket(session) as socket:
        assert (await disable(ada, 2)).status_code in {200, 204}
        assert refusal(await eve.get("/auth/me/")) == REVOKED
        assert await end_of(socket) == (1008, "Invalid or missing token")

    login = await server.anyone.post("/auth/token/", EVE)
    assert refusal(login) == (401, "Invalid credentials.")
    shown = (await ada.get("/users/2")).json()
    assert (shown["is_active"], shown["key_count"]) == (False, 0)
    assert (await ada.get("/credentials/")).json()["total"] == 1
    assert (await ada.delete("/users/2")).status_code == 204
    assert (await disable(ada, 2)).status_code in {200, 204}


async def test_an_enabled_user_logs_in_again_with_a_new_key(
    server: AccountServer, ada: Caller
) -> None:
    """Old keys stay revoked."""
    await create(ada)
    old = server.with_key(await server.log_in("eve", EVE["password"]))
    await ada.delete("/users/2")

    assert (await ada.patch("/users/2", {"is_active": True})).json()["is_active"]
    new = server.with_key(await server.log_in("eve", EVE["password"]))
    assert (await new.get("/auth/me/")).status_code == 200
    assert refusal(await old.get("/auth/me/")) == REVOKED


async def test_a_key_made_for_a_disabled_user_waits(server: AccountServer, ada: Caller) -> None:
    """It is valid, but its user is not there until enabled."""
    await create(ada)
    await ada.delete("/users/2")
    key = (await ada.post("/users/2/keys", {"name": "ci"})).json()["key"]
    eve = server.with_key(key)

    assert refusal(await eve.get("/auth/me/")) == (401, "User not found.")
    await ada.patch("/users/2", {"is_active": True})
    assert (await eve.get("/auth/me/")).status_code == 200


async def test_the_last_admin_stays(server: AccountServer, ada: Caller, olga: Caller) -> None:
    """Not demoted, not disabled, not deleted; disabled and agent admins do not count."""
    await server.add_user("old", role="admin", is_active=False)
    await server.add_user("agent_x_y", role="admin", kind="agent")

    assert refusal(await ada.patch("/users/1", {"role": "normal"})) == LAST_DEMOTED
    assert refusal(await ada.patch("/users/1", {"is_active": False})) == LAST_DEMOTED
    assert refusal(await ada.delete("/users/1")) == LAST_DELETED
    assert (await ada.patch("/users/1", {"role": "admin", "is_active": True})).status_code == 200
    assert (await ada.delete("/users/3")).status_code == 204
    assert (await ada.patch("/users/2", {"role": "admin"})).status_code == 200
    assert (await ada.patch("/users/1", {"role": "normal"})).status_code == 200
    assert refusal(await olga.delete("/users/2")) == LAST_DELETED


@pytest.mark.parametrize("method", ["demote", "disable", "delete"])
async def test_of_two_admins_that_remove_each_other_one_stays(
    server: AccountServer, ada: Caller, olga: Caller, method: str
) -> None:
    """However close together."""
    await ada.patch("/users/2", {"role": "admin"})
    statuses: list[int] = []

    async def remove(caller: Caller, user_id: int) -> None:
        body = {"role": "normal"} if method == "demote" else {"is_active": False}
        path = f"/users/{user_id}"
        answer = await (caller.delete(path) if method == "delete" else caller.patch(path, body))
        statuses.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove, ada, 2)
        nursery.start_soon(remove, olga, 1)

    assert sum(status in {200, 204} for status in statuses) == 1
    admins = await server.store.read(_count_admins)
    assert admins == 1


def _count_admins(conn: Any) -> int:
    query = "SELECT count(*) FROM users WHERE role = 'admin' AND is_active"
    return int(conn.exec_driver_sql(query).scalar_one())


@pytest.mark.parametrize("kind", ["agent", "gateway"])
async def test_a_machines_account_is_no_persons(
    server: AccountServer, ada: Caller, kind: str
) -> None:
    """No password and no admin role, but a name, a key and an end."""
    await server.add_user("agent_x_y", kind=kind, created_by_id=1)

    assert refusal(await ada.patch("/users/2", {"password": "long enough"})) == NOT_HUMAN
    assert refusal(await ada.patch("/users/2", {"role": "admin", "first_name": "A"})) == NOT_HUMAN
    assert (await ada.get("/users/2")).json()["first_name"] == ""
    assert (await ada.patch("/users/2", {"role": "normal", "first_name": "A"})).status_code == 200
    assert (await ada.post("/users/2/keys", {"name": "ci"})).status_code == 201
    assert (await ada.delete("/users/2")).status_code == 204


async def test_an_admin_makes_and_revokes_anybodys_keys(
    server: AccountServer, ada: Caller, olga: Caller
) -> None:
    """They are shown like one's own."""
    answer = await ada.post("/users/2/keys", {"name": "ci", "expires_at": "2100-01-01T00:00:00Z"})

    made = answer.json()
    assert answer.status_code == 201
    assert set(made) == {
        *("id", "name", "prefix", "created_at", "last_used_at", "expires_at", "is_active", "key")
    }
    caller = server.with_key(made.pop("key"))
    assert (await ada.get("/users/2/keys")).json()[0] == made
    assert (await caller.get("/users/me")).json()["username"] == "olga"
    for _ in range(2):
        assert (await ada.delete(f"/users/2/keys/{made['id']}")).status_code == 204
    assert refusal(await caller.get("/users/me")) == REVOKED
    assert (await olga.get("/users/me/keys")).json()[0]["is_active"] is False


async def test_anybodys_keys_follow_the_rules_of_ones_own(ada: Caller, olga: Caller) -> None:
    """Names, ends and the limit."""
    path = "/users/2/keys"
    assert problems(await ada.post(path, {"name": "session"})) == ["body.name: is reserved"]
    past = await ada.post(path, {"name": "ci", "expires_at": "2020-01-01T00:00:00"})
    assert refusal(past) == (400, "expires_at must be in the future.")
    for _ in range(99):
        assert (await ada.post(path, {"name": "ci"})).status_code == 201
    assert refusal(await ada.post(path, {"name": "ci"})) == (409, "API key limit reached.")


@pytest.mark.parametrize("user_id", [0, -1, 99, 2**63 - 1])
async def test_an_unknown_user_is_not_found(ada: Caller, user_id: int) -> None:
    """Before any rule of the section, for every method."""
    path = f"/users/{user_id}"

    assert refusal(await ada.get(path)) == NOT_FOUND
    assert refusal(await ada.patch(path, {"role": "normal"})) == NOT_FOUND
    assert refusal(await ada.patch(path, {})) == NOT_FOUND
    assert refusal(await ada.delete(path)) == NOT_FOUND
    assert refusal(await ada.get(f"{path}/keys")) == NOT_FOUND
    past = {"name": "ci", "expires_at": "2020-01-01T00:00:00"}
    assert refusal(await ada.post(f"{path}/keys", past)) == NOT_FOUND
    assert refusal(await ada.delete(f"{path}/keys/1")) == NO_KEY


async def test_a_key_of_another_user_is_not_found(ada: Caller, olga: Caller) -> None:
    """Ada's key is not one of olga's."""
    assert refusal(await ada.delete("/users/2/keys/1")) == NO_KEY
    assert (await ada.get("/users/me")).status_code == 200


async def test_ids_are_integers(ada: Caller) -> None:
    """Anything else is a problem of the path; all of them at once."""
    assert problems(await ada.get("/users/x")) == ["path.user_id: must be an integer"]
    assert problems(await ada.delete("/users/x/keys/y")) == [
        "path.user_id: must be an integer",
        "path.key_id: must be an integer",
    ]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_admins_get_in(
    server: AccountServer, olga: Caller, method: str, path: str
) -> None:
    """Nobody without a key, no normal user, no agent user of an admin."""
    await server.add_user("agent_x_y", kind="agent", created_by_id=1, role="admin")

    async def ask(key: str | None) -> tuple[int, object]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return refusal(await server.client.request(method, f"/api/v1{path}", headers=headers))

    assert await ask(None) == (401, "Invalid or missing API key.")
    assert await ask("olga") == ADMINS_ONLY
    assert await ask("agent_x_y") == ADMINS_ONLY
