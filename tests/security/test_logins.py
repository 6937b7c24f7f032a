"""Attacks on accounts. Contract: auth.md, beyond.md §7-8."""

from typing import Any

import httpx2
import pyotp
import pytest
import trio

from pipelit.assembly.web import API_ROUTES, ROOT_ROUTES
from pipelit.web.routing import Auth, Route
from tests.kit.api import Api
from tests.kit.people import refusal
from tests.kit.site import People, Site
from tests.security.bystander import undisturbed

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
BAD_LOGIN = (401, "Invalid credentials.")
BAD_CODE = (401, "Invalid TOTP code.")

DOORS = {
    "POST /auth/token/",
    "GET /auth/setup-status/",
    "POST /auth/setup/",
    "POST /auth/mfa/login-verify/",
    "GET /health",
    "GET /ready",
    "GET /openapi.json",
    "GET /docs",
}
"""What is open without a key, all of it. Contract: README.md §2."""


async def log_in(api: Api, username: str, password: str = PASSWORD) -> httpx2.Response:
    body = {"username": username, "password": password}
    return await api.call("POST", "/auth/token/", body)


async def at_once(calls: int, call: Any) -> list[httpx2.Response]:
    """Make the same call many times together."""
    answers: list[httpx2.Response] = []

    async def one() -> None:
        answers.append(await call())

    async with trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(one)
    return answers


@pytest.fixture
async def user(people: People, slug: str) -> str:
    """The name of a user with a password."""
    await people.ada.post("/users/", {"username": slug[-140:], "password": PASSWORD})
    return slug[-140:]


@pytest.fixture
async def totp(people: People, user: str) -> pyotp.TOTP:
    """The second factor of the user; the present code is used already."""
    owner = Api(people.anyone.http, (await log_in(people.anyone, user)).json()["key"])
    totp = pyotp.TOTP((await owner.post("/auth/mfa/setup/"))["secret"])
    await owner.post("/auth/mfa/verify/", {"code": totp.now()})
    return totp


async def verify(people: People, user: str, code: str) -> httpx2.Response:
    body = {"username": user, "code": code}
    return await people.anyone.call("POST", "/auth/mfa/login-verify/", body)


def test_nothing_but_the_published_doors_is_open() -> None:
    """Every other route has a rule of its own or asks for a key."""
    open_to_all = {
        f"{route.method} {route.path}"
        for route in (*API_ROUTES, *ROOT_ROUTES)
        if route.auth is Auth.NONE
    }
    assert open_to_all == DOORS


def test_a_route_that_forgets_its_auth_stops_the_start() -> None:
    """It cannot even be declared."""

    async def handler(call: Any) -> None: ...

    with pytest.raises(TypeError):
        Route("GET", "/x/", handler, section="x", summary="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="declares its auth"):
        Route("GET", "/x/", handler, auth=None, section="x", summary="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query", ["?api_key={key}", "?token={key}", "?access_token={key}", "?key={key}"]
)
async def test_a_key_in_the_url_is_none(people: People, site: Site, query: str) -> None:
    """Where only webhooks take it, it would end in somebody's log."""
    answer = await people.anyone.call("GET", f"/auth/me/{query.format(key=site.ada)}")

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "Basic {key}",
        "Bearer  {key}",
        "Bearer {key}, Bearer x",
        "{key}",
        "Bearer\t{key}",
        "Token {key}",
        "Bearer %00{key}",
        "Bearer ' OR 1=1 --",
    ],
)
async def test_a_header_that_is_almost_right_is_wrong(
    people: People, site: Site, header: str
) -> None:
    """401, in the same words."""
    raw = [("Authorization", header.format(key=site.ada))]

    answer = await people.anyone.http.get("/api/v1/users/", headers=raw)

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/auth/../users/",
        "/api/v1//users/",
        "/api/v1/auth/setup-status/../../users/",
        "/api/v1/%75sers/",
        "/api/v1/users/%2e%2e/users/",
        "/health/../api/v1/users/",
        "/api/v1/users/;x=1",
        "/api/v1/USERS/",
        "/docs/../api/v1/users/",
        "/api/v1/users/.json",
    ],
)
async def test_no_spelling_of_a_path_goes_around_the_door(site: Site, path: str) -> None:
    """Never a list of users to who has no key."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        with trio.fail_after(10):
            answer = await stream.receive_some(4096)

    assert answer.split()[1] in {b"401", b"404"}


@pytest.mark.parametrize(
    "header", ["x_http_method_override", "x_original_url", "x_rewrite_url", "x_forwarded_user"]
)
async def test_no_header_makes_a_request_another_one(people: People, header: str) -> None:
    """What proxies understand, this server does not."""
    answer = await people.otto.call("GET", "/users/", **{header: "ada"})

    assert refusal(answer) == (403, "Admin access required.")


async def test_nobody_makes_oneself_an_admin(people: People) -> None:
    """Not by a field, not by a second setup, not by a new user."""
    fields = {"role": "admin", "is_admin": True, "id": 1, "is_active": True}
    await people.otto.call("PATCH", "/users/me", {**fields, "first_name": "Otto"})
    again = await people.otto.call(
        "POST", "/auth/setup/", {"username": "evil", "password": PASSWORD}
    )
    made = await people.otto.call(
        "POST", "/users/", {"username": "evil", "password": PASSWORD, "role": "admin"}
    )

    assert (await people.otto.get("/users/me"))["role"] == "normal"
    assert refusal(again) == (409, "Setup already completed.")
    assert refusal(made) == (403, "Admin access required.")


async def test_brute_force_in_parallel_is_stopped(
    people: People, bystander: Api, user: str
) -> None:
    """Of thirty guesses sent together few are checked; the right one is not among the others."""
    async with undisturbed(bystander):
        answers = await at_once(30, lambda: log_in(people.anyone, user, "guess"))

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 11
    assert (await log_in(people.anyone, user)).status_code == 429
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)


async def test_the_owner_is_not_locked_out_by_who_guesses(people: People, user: str) -> None:
    """The throttle is one of the guesser's address; keys work meanwhile."""
    key = (await log_in(people.anyone, user)).json()["key"]
    await at_once(11, lambda: log_in(people.anyone, user, "guess"))

    owner = Api(people.anyone.http, key)
    assert (await owner.get("/auth/me/"))["username"] == user
    other = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx2.AsyncClient(transport=other, base_url=str(people.anyone.http.base_url)) as c:
        body = {"username": user, "password": PASSWORD}
        answer = await c.post("/api/v1/auth/token/", json=body)
    assert answer.status_code == 200


async def test_unknown_names_look_like_wrong_passwords(
    people: People, site: Site, user: str
) -> None:
    """Status, body and headers are the same."""
    answers = [
        await log_in(people.anyone, name, "guess") for name in (user, f"{user[:100]}-x", "olga")
    ]

    assert {refusal(answer) for answer in answers} == {BAD_LOGIN}
    names = [sorted(answer.headers) for answer in answers]
    assert names[0] == names[1] == names[2]


async def test_a_code_without_the_password_is_worth_nothing(
    people: People, user: str, totp: pyotp.TOTP
) -> None:
    """Nor does the password alone give a key."""
    assert refusal(await verify(people, user, totp.now())) == BAD_LOGIN
    answer = (await log_in(people.anyone, user)).json()
    assert answer == {"key": "", "requires_mfa": True}


async def test_a_code_that_was_seen_is_worth_nothing(
    people: People, user: str, totp: pyotp.TOTP
) -> None:
    """Whoever looks over a shoulder is too late."""
    await log_in(people.anyone, user)

    assert refusal(await verify(people, user, totp.now())) == BAD_CODE


async def test_codes_are_not_guessed_in_parallel(
    people: People, user: str, totp: pyotp.TOTP
) -> None:
    """Of forty guesses sent together at most five are checked."""
    await log_in(people.anyone, user)

    answers = await at_once(40, lambda: verify(people, user, "000000"))

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 5


async def test_keys_and_secrets_are_no_text_in_the_database(
    people: People, site: Site, user: str, totp: pyotp.TOTP
) -> None:
    """Who steals the file has hashes and ciphers."""
    made = await people.ada.post("/users/me/keys", {"name": "x"})
    await people.ada.add_model("http://127.0.0.1:9/v1")

    files = [file.read_bytes() for file in site.server.data.glob("db.sqlite3*")]

    for secret in (made["key"], site.ada, PASSWORD, "sk-test-0123456789", totp.secret):
        assert not any(secret.encode() in content for content in files)
