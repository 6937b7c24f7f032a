"""Authentication over a real socket, in the order of the section.

Contract: auth.md, README.md §2.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from tests.kit.accounts import AccountServer
from tests.kit.people import problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "providers", "server", "store", "store_url"]

ADA = {"username": "ada", "password": "correct horse"}


async def test_setup_status_is_true_while_nobody_exists(server: AccountServer) -> None:
    """`needs_setup` is the only field, and turns false with the first user."""
    before = await server.anyone.get("/auth/setup-status/")
    await server.setup()
    after = await server.anyone.get("/auth/setup-status/")

    assert (before.status_code, before.json()) == (200, {"needs_setup": True})
    assert (after.status_code, after.json()) == (200, {"needs_setup": False})


async def test_setup_gives_a_key_that_works(server: AccountServer) -> None:
    """The answer is a TokenResponse: a key of 43 URL-safe characters and no second step."""
    answer = await server.anyone.post("/auth/setup/", ADA)

    key = answer.json()["key"]
    assert answer.status_code == 200
    assert answer.json() == {"key": key, "requires_mfa": False}
    assert len(key) == 43
    assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert (await server.with_key(key).get("/auth/me/")).status_code == 200


async def test_setup_works_once(server: AccountServer) -> None:
    """The second is refused whoever asks."""
    await server.setup()

    answer = await server.anyone.post("/auth/setup/", {"username": "eve", "password": "x"})

    assert refusal(answer) == (409, "Setup already completed.")


async def test_of_two_setups_at_once_one_wins(server: AccountServer) -> None:
    """One 200, one 409, one admin."""
    statuses: list[int] = []

    async def attempt(username: str) -> None:
        body = {"username": username, "password": "x"}
        statuses.append((await server.anyone.post("/auth/setup/", body)).status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, "ada")
        nursery.start_soon(attempt, "eve")

    assert sorted(statuses) == [200, 409]


async def test_me_is_exactly_two_fields(server: AccountServer) -> None:
    """Name and flag of whoever asks."""
    ada = await server.setup()
    bob = await server.add_user("bob", mfa_enabled=True)

    assert (await ada.get("/auth/me/")).json() == {"username": "ada", "mfa_enabled": False}
    assert (await bob.get("/auth/me/")).json() == {"username": "bob", "mfa_enabled": True}


async def test_login_gives_a_key(server: AccountServer) -> None:
    """The key of a login is another one than that of setup."""
    await server.setup()

    answer = await server.anyone.post("/auth/token/", ADA)

    assert answer.status_code == 200
    assert answer.json() == {"key": answer.json()["key"], "requires_mfa": False}
    me = await server.with_key(answer.json()["key"]).get("/auth/me/")
    assert me.json()["username"] == "ada"


async def test_login_with_mfa_says_that_a_second_step_is_needed(server: AccountServer) -> None:
    """The right password of a user with MFA gives no key."""
    await server.setup()
    await server.set_user("ada", mfa_enabled=True)

    right = await server.anyone.post("/auth/token/", ADA)
    wrong = await server.anyone.post("/auth/token/", {**ADA, "password": "no"})

    assert (right.status_code, right.json()) == (200, {"key": "", "requires_mfa": True})
    assert refusal(wrong) == (401, "Invalid credentials.")


async def test_every_login_failure_is_the_same_answer(server: AccountServer) -> None:
    """Unknown user, wrong case, agent, disabled user, wrong password: byte for byte the same."""
    await server.setup()
    await server.add_user("agent_flow_agent_1", kind="agent", created_by_id=1)
    names = ["nobody", "Ada", "agent_flow_agent_1"]
    answers = [await server.anyone.post("/auth/token/", {**ADA, "username": n}) for n in names]
    answers.append(await server.anyone.post("/auth/token/", {**ADA, "password": "x"}))
    await server.set_user("ada", is_active=False)
    answers.append(await server.anyone.post("/auth/token/", ADA))

    assert {refusal(answer) for answer in answers} == {(401, "Invalid credentials.")}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}


async def test_too_many_failures_make_wait(server: AccountServer) -> None:
    """After more than 10 failures even the right password is not checked; others may log in."""
    await server.setup()
    wrong = {**ADA, "password": "wrong"}
    failures = [await server.anyone.post("/auth/token/", wrong) for _ in range(11)]

    answer = await server.anyone.post("/auth/token/", ADA)
    other = await server.anyone.post("/auth/token/", {**wrong, "username": "eve"})

    assert {failure.status_code for failure in failures} == {401}
    assert refusal(answer) == (429, "Too many login attempts. Please wait a minute.")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert other.status_code == 401


async def test_a_user_keeps_ten_sessions(server: AccountServer) -> None:
    """The eleventh login revokes the first session; the key of setup stays."""
    ada = await server.setup()
    keys = [(await server.anyone.post("/auth/token/", ADA)).json()["key"] for _ in range(11)]

    statuses = [(await server.with_key(key).get("/auth/me/")).status_code for key in keys]

    assert statuses == [401] + [200] * 10
    assert refusal(await server.with_key(keys[0]).get("/auth/me/")) == (
        401,
        "API key has been revoked.",
    )
    assert (await ada.get("/auth/me/")).status_code == 200


async def test_before_setup_nobody_gets_in(server: AccountServer) -> None:
    """Bearer endpoints and login answer 401."""
    me = await server.with_key("k" * 43).get("/auth/me/")
    token = await server.anyone.post("/auth/token/", ADA)

    assert refusal(me) == (401, "Invalid or missing API key.")
    assert refusal(token) == (401, "Invalid credentials.")


_USERNAME, _PASSWORD = "body.username: ", "body.password: "


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, [_PASSWORD + "field required", _USERNAME + "field required"]),
        (
            {"username": None, "password": 5},
            [_PASSWORD + "must be a string", _USERNAME + "must not be null"],
        ),
        (
            {"username": "", "password": ""},
            [
                _PASSWORD + "must be at least 1 characters",
                _USERNAME + "must be at least 1 characters",
            ],
        ),
        (
            {"username": "x" * 151, "password": "x" * 1025},
            [
                _PASSWORD + "must be at most 1024 characters",
                _USERNAME + "must be at most 150 characters",
            ],
        ),
        ({"username": "a\0", "password": "x"}, [_USERNAME + "must be valid text"]),
    ],
)
@pytest.mark.parametrize("path", ["/auth/token/", "/auth/setup/"])
async def test_all_problems_of_name_and_password_are_told(
    server: AccountServer, path: str, body: dict[str, Any], found: list[str]
) -> None:
    """Setup and login check the shape alike."""
    assert sorted(problems(await server.anyone.post(path, body))) == found


@pytest.mark.parametrize("username", [" ada", "ada ", " ", "\u00a0ada", "a\tb", "a\x7fb", "a\nb"])
async def test_a_first_username_is_clean(server: AccountServer, username: str) -> None:
    """Setup takes no control characters and no white space around a name."""
    answer = await server.anyone.post("/auth/setup/", {"username": username, "password": "x"})

    assert [problem.partition(": ")[0] for problem in problems(answer)] == ["body.username"]
    assert (await server.anyone.get("/auth/setup-status/")).json()["needs_setup"]


async def test_a_name_and_a_password_of_full_length_work(server: AccountServer) -> None:
    """Nothing is cut off: the last character counts."""
    body = {"username": "ä" * 150, "password": "ö" * 1024}
    assert (await server.anyone.post("/auth/setup/", body)).status_code == 200

    right = await server.anyone.post("/auth/token/", body)
    wrong = await server.anyone.post("/auth/token/", {**body, "password": "ö" * 1023 + "o"})

    assert (right.status_code, wrong.status_code) == (200, 401)


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Basic YTpi", "Bearer unknown", "Bearer  ada", "ada"]
)
async def test_a_request_without_a_known_key_is_refused(
    server: AccountServer, header: str | None
) -> None:
    """Absent, another scheme, empty and unknown are one answer."""
    await server.add_user("ada")
    headers = {} if header is None else {"Authorization": header}

    answer = await server.client.get("/api/v1/auth/me/", headers=headers)

    assert refusal(answer) == (401, "Invalid or missing API key.")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_scheme_is_case_insensitive(server: AccountServer) -> None:
    """`bearer` is `Bearer`."""
    await server.add_user("ada")

    answer = await server.client.get("/api/v1/auth/me/", headers={"Authorization": "bEaReR ada"})

    assert answer.status_code == 200


async def test_a_revoked_key_is_refused_on_the_next_request(server: AccountServer) -> None:
    """However often it was used before."""
    ada = await server.add_user("ada")
    assert (await ada.get("/auth/me/")).status_code == 200

    await server.set_key("test", is_active=False)

    assert refusal(await ada.get("/auth/me/")) == (401, "API key has been revoked.")


async def test_an_expired_key_is_refused(server: AccountServer) -> None:
    """With its own text."""
    ada = await server.add_user("ada")

    await server.set_key("test", expires_at=datetime.now(UTC) - timedelta(seconds=1))

    assert refusal(await ada.get("/auth/me/")) == (401, "API key has expired.")


async def test_the_key_of_a_disabled_user_is_refused(server: AccountServer) -> None:
    """The key is valid, its user is not there."""
    ada = await server.add_user("ada", is_active=False)

    assert refusal(await ada.get("/auth/me/")) == (401, "User not found.")
