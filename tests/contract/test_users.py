"""One's own profile and keys over a real socket. Contract: beyond.md §7."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kit.accounts import AccountServer, Caller, end_of
from tests.kit.people import ada, olga, otto, problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "server", "store", "store_url"]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
NO_KEY = (404, "API key not found.")


async def make_key(caller: Caller, **body: Any) -> dict[str, Any]:
    answer = await caller.post("/users/me/keys", {"name": "ci", **body})
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


async def test_my_profile_field_by_field(ada: Caller, olga: Caller) -> None:
    """The first user is an admin with the key of setup; names are empty until given."""
    mine, hers = (await ada.get("/users/me")).json(), (await olga.get("/users/me")).json()

    assert INSTANT.fullmatch(mine["created_at"])
    assert mine == {
        "id": 1,
        "username": "ada",
        "role": "admin",
        "first_name": "",
        "last_name": "",
        "created_at": mine["created_at"],
        "mfa_enabled": False,
        "key_count": 1,
        "is_active": True,
        "is_agent": False,
    }
    assert (hers["id"], hers["username"], hers["role"]) == (2, "olga", "normal")


async def test_an_agent_sees_that_it_is_one(server: AccountServer, ada: Caller) -> None:
    """`is_agent` tells, and its role is normal."""
    agent = await server.add_user("agent_x_y", kind="agent", created_by_id=1)

    me = (await agent.get("/users/me")).json()

    assert (me["is_agent"], me["role"]) == (True, "normal")


async def test_me_is_a_word_not_an_id(olga: Caller) -> None:
    """With and without the slash, though only admins may read `/users/{user_id}`."""
    for path in ("/users/me", "/users/me/"):
        assert (await olga.get(path)).json()["username"] == "olga"


async def test_a_profile_changes_what_is_sent(olga: Caller) -> None:
    """Null and absent are unchanged; empty text is a value; nothing else moves."""
    before = (await olga.get("/users/me")).json()
    named = await olga.patch("/users/me", {"first_name": "Olga", "last_name": "x" * 150})
    kept = await olga.patch("/users/me", {"first_name": None, "password": None})
    emptied = await olga.patch("/users/me", {"last_name": ""})

    assert (named.status_code, named.json()) == (
        200,
        {**before, "first_name": "Olga", "last_name": "x" * 150},
    )
    assert kept.json() == named.json()
    assert emptied.json() == {**before, "first_name": "Olga"}
    assert (await olga.patch("/users/me", {})).json() == emptied.json()


async def test_nobody_promotes_oneself(olga: Caller) -> None:
    """`role`, `is_active`, `username` and the like have no effect, whatever they are."""
    sent = {"role": "admin", "is_active": False, "username": "root", "id": 1, "is_agent": 7}
    before = (await olga.get("/users/me")).json()

    assert (await olga.patch("/users/me", sent)).json() == before
    assert (await olga.patch("/users/me", {"role": 5})).json() == before
    assert refusal(await olga.get("/users/")) == (403, "Admin access required.")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"password": "x" * 7}, ["body.password: must be at least 8 characters"]),
        ({"password": "x" * 1025}, ["body.password: must be at most 1024 characters"]),
        (
            {"password": 1, "first_name": [], "last_name": "x" * 151},
            [
                "body.first_name: must be a string",
                "body.last_name: must be at most 150 characters",
                "body.password: must be a string",
            ],
        ),
        ({"first_name": "a\0"}, ["body.first_name: must be valid text"]),
    ],
)
async def test_what_a_profile_may_not_be(
    olga: Caller, body: dict[str, Any], found: list[str]
) -> None:
    """All problems are told together."""
    assert sorted(problems(await olga.patch("/users/me", body))) == found


async def test_a_new_password_logs_in_and_the_old_one_does_not(
    server: AccountServer, ada: Caller
) -> None:
    """From the next login on."""
    assert (await ada.patch("/users/me", {"password": "ü" * 1024})).status_code == 200

    old = await server.anyone.post("/auth/token/", {"username": "ada", "password": "correct horse"})

    assert refusal(old) == (401, "Invalid credentials.")
    assert len(await server.log_in(password="ü" * 1024)) == 43


async def test_a_new_password_ends_all_sessions_but_the_one_that_asks(
    server: AccountServer, ada: Caller
) -> None:
    """Keys of other names stay; sockets of ended sessions close."""
    asking, other = server.with_key(await server.log_in()), await server.log_in()
    key = await make_key(ada)

    async with server.socket(other) as socket:
        await asking.patch("/users/me", {"password": "battery staple"})
        assert await end_of(socket) == (1008, "Invalid or missing token")

    ended = await server.with_key(other).get("/auth/me/")
    assert refusal(ended) == (401, "API key has been revoked.")
    for caller in (asking, ada, server.with_key(key["key"])):
        assert (await caller.get("/auth/me/")).status_code == 200


async def test_an_agent_gets_no_password(server: AccountServer, ada: Caller) -> None:
    """It cannot log in, so it cannot make itself able to."""
    agent = await server.add_user("agent_x_y", kind="agent", created_by_id=1)

    answer = await agent.patch("/users/me", {"password": "long enough", "first_name": "A"})

    assert refusal(answer) == (409, "Not a human account.")
    assert (await agent.patch("/users/me", {"first_name": "A"})).json()["first_name"] == "A"


async def test_a_key_is_shown_whole_once(server: AccountServer, olga: Caller) -> None:
    """Created with `key`, listed without it."""
    made = await make_key(olga, expires_at="2100-01-01T00:00:00Z")

    key = made.pop("key")
    assert len(key) == 43
    assert INSTANT.fullmatch(made["created_at"])
    assert made == {
        "id": made["id"],
        "name": "ci",
        "prefix": key[:8],
        "created_at": made["created_at"],
        "last_used_at": None,
        "expires_at": "2100-01-01T00:00:00",
        "is_active": True,
    }
    assert (await olga.get("/users/me/keys")).json()[0] == made
    assert (await server.with_key(key).get("/users/me")).json()["key_count"] == 2
    used = (await olga.get("/users/me/keys")).json()[0]["last_used_at"]
    assert INSTANT.fullmatch(used)


async def test_keys_are_listed_newest_first_revoked_ones_too(olga: Caller) -> None:
    """A flat array of the caller's own keys; names may repeat."""
    first, second = await make_key(olga), await make_key(olga)
    await olga.delete(f"/users/me/keys/{first['id']}")

    listed = (await olga.get("/users/me/keys")).json()

    assert [(key["id"], key["name"], key["is_active"]) for key in listed] == [
        (second["id"], "ci", True),
        (first["id"], "ci", False),
        (2, "test", True),
    ]
    assert (await olga.get("/users/me")).json()["key_count"] == 2


@pytest.mark.parametrize("sent", [{}, {"expires_at": None}])
async def test_a_key_need_not_expire(olga: Caller, sent: dict[str, Any]) -> None:
    """Null is the default."""
    assert (await make_key(olga, **sent))["expires_at"] is None


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2100-06-01T12:00:00+02:00", "2100-06-01T10:00:00"),
        ("2100-06-01T12:00:00", "2100-06-01T12:00:00"),
        ("2100-06-01T12:00:00.25Z", "2100-06-01T12:00:00.250000"),
    ],
)
async def test_an_end_is_shown_in_utc(olga: Caller, sent: str, shown: str) -> None:
    """Whatever offset it was sent with."""
    assert (await make_key(olga, expires_at=sent))["expires_at"] == shown


async def test_a_key_ends_in_the_future(server: AccountServer, olga: Caller) -> None:
    """Not now and not before; one that ended since is refused."""
    for past in ("2020-01-01T00:00:00", datetime.now(UTC).isoformat()):
        answer = await olga.post("/users/me/keys", {"name": "ci", "expires_at": past})
        assert refusal(answer) == (400, "expires_at must be in the future.")
    made = await make_key(olga, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await server.set_key("ci", expires_at=datetime.now(UTC) - timedelta(seconds=1))

    assert refusal(await server.with_key(made["key"]).get("/users/me")) == (
        401,
        "API key has expired.",
    )


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["body.name: field required"]),
        ({"name": None}, ["body.name: must not be null"]),
        ({"name": ""}, ["body.name: must be at least 1 characters"]),
        ({"name": "  "}, ["body.name: must not be blank"]),
        ({"name": "x" * 101}, ["body.name: must be at most 100 characters"]),
        ({"name": "session"}, ["body.name: is reserved"]),
        (
            {"name": 1, "expires_at": "tomorrow"},
            ["body.name: must be a string", "body.expires_at: must be an ISO 8601 datetime"],
        ),
    ],
)
async def test_what_a_key_may_not_be(olga: Caller, body: dict[str, Any], found: list[str]) -> None:
    """The name of sessions is reserved, so that a login never revokes a key made by hand."""
    assert problems(await olga.post("/users/me/keys", body)) == found


async def test_a_user_has_at_most_100_active_keys(server: AccountServer, olga: Caller) -> None:
    """The hundredth is the last; revoking one makes room."""
    made = [await make_key(olga) for _ in range(99)]

    refused = await olga.post("/users/me/keys", {"name": "ci"})

    assert refusal(refused) == (409, "API key limit reached.")
    past = {"name": "ci", "expires_at": "2020-01-01T00:00:00"}
    assert (await olga.post("/users/me/keys", past)).status_code == 400
    await olga.delete(f"/users/me/keys/{made[0]['id']}")
    await make_key(olga)


async def test_a_revoked_key_is_refused_and_its_sockets_close(
    server: AccountServer, olga: Caller
) -> None:
    """On the next request, though it was good a moment before; revoking again is fine."""
    made = await make_key(olga)
    caller = server.with_key(made["key"])
    async with server.socket(made["key"]) as socket:
        assert (await caller.get("/users/me")).status_code == 200
        assert (await olga.delete(f"/users/me/keys/{made['id']}")).status_code == 204
        assert refusal(await caller.get("/users/me")) == (401, "API key has been revoked.")
        assert await end_of(socket) == (1008, "Invalid or missing token")

    assert (await olga.delete(f"/users/me/keys/{made['id']}")).status_code == 204


async def test_a_key_may_revoke_itself(server: AccountServer, olga: Caller) -> None:
    """The answer still comes; the next one is a refusal."""
    made = await make_key(olga)
    caller = server.with_key(made["key"])

    assert (await caller.delete(f"/users/me/keys/{made['id']}")).status_code == 204
    assert refusal(await caller.get("/users/me")) == (401, "API key has been revoked.")


async def test_nobody_revokes_anothers_key_as_ones_own(ada: Caller, olga: Caller) -> None:
    """Not even an admin: it is not found, like one that never was."""
    made = await make_key(olga)

    assert refusal(await ada.delete(f"/users/me/keys/{made['id']}")) == NO_KEY
    for unknown in (0, -1, 99, 2**63 - 1):
        assert refusal(await olga.delete(f"/users/me/keys/{unknown}")) == NO_KEY
    assert problems(await olga.delete("/users/me/keys/x")) == ["path.key_id: must be an integer"]
    assert (await olga.get("/users/me")).json()["key_count"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/me"),
        ("PATCH", "/users/me"),
        ("GET", "/users/me/keys"),
        ("POST", "/users/me/keys"),
        ("DELETE", "/users/me/keys/1"),
    ],
)
async def test_nobody_gets_in_without_a_key(server: AccountServer, method: str, path: str) -> None:
    """Every endpoint of the section needs one."""
    answer = await server.client.request(method, f"/api/v1{path}")

    assert refusal(answer) == (401, "Invalid or missing API key.")
