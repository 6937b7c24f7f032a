"""Acts that matter for security leave an entry, and only admins read it. operations.md §7."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pyotp
import pytest

from pipelit.assembly.web import API_ROUTES
from pipelit.clock import Clock
from pipelit.store import Store
from pipelit.store.queries.security_log import NewEntry, insert_entry, list_entries
from tests.kit.api import Api, http_client
from tests.kit.site import People, Site, people, site, slug
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "people", "site", "slug", "store", "store_url"]

PASSWORD = "battery staple 17"


@pytest.fixture
async def eve(site: Site, people: People, slug: str) -> AsyncIterator[tuple[str, Api]]:
    """A new user's name, and the user logged in."""
    name = slug[:100]
    await people.ada.post("/users/", {"username": name, "password": PASSWORD})
    async with http_client(site.url) as http:
        key = (await Api(http).post("/auth/token/", {"username": name, "password": PASSWORD}))[
            "key"
        ]
        yield name, Api(http, key)


async def entries(people: People, user: str, kind: str = "") -> list[dict[str, Any]]:
    page = await people.ada.get(f"/system/audit/?user={user}&kind={kind}&limit=1000")
    items: list[dict[str, Any]] = page["items"]
    return items


async def test_a_login_is_an_entry_field_by_field(people: People, eve: tuple[str, Api]) -> None:
    """With who, whence and by which request."""
    name, api = eve
    (entry,) = await entries(people, name, "login")

    assert entry == {
        "id": entry["id"],
        "created_at": entry["created_at"],
        "kind": "login",
        "outcome": "done",
        "user_id": (await api.get("/users/me"))["id"],
        "username": name,
        "key_id": None,
        "peer": "127.0.0.1",
        "request_id": entry["request_id"],
        "subject": {"requires_mfa": False},
    }
    assert datetime.fromisoformat(entry["created_at"])
    assert entry["request_id"]


async def test_a_wrong_password_is_a_refusal(people: People, eve: tuple[str, Api]) -> None:
    """Of the user whose name was given."""
    name, _ = eve
    await people.anyone.call("POST", "/auth/token/", {"username": name, "password": "wrong"})

    assert [entry["outcome"] for entry in await entries(people, name, "login")] == [
        "refused",
        "done",
    ]


async def test_a_name_that_nobody_has_is_not_kept(people: People, site: Site) -> None:
    """Somebody may have typed a password there: neither entry nor log line has it."""
    typed = "hunter2-in-the-wrong-field"
    await people.anyone.call("POST", "/auth/token/", {"username": typed, "password": "wrong"})
    page = await people.ada.get("/system/audit/?kind=login&limit=1000")

    assert ("refused", "") in {(entry["outcome"], entry["username"]) for entry in page["items"]}
    assert typed not in json.dumps(page)
    assert typed not in site.server.log.read_text()


async def test_a_changed_role_tells_who_whom_and_to_what(
    people: People, eve: tuple[str, Api]
) -> None:
    """And by which key."""
    user_id = (await eve[1].get("/users/me"))["id"]
    await people.ada.call(
        "PATCH", f"/users/{user_id}", {"role": "admin", "password": "new password 1"}
    )
    entry = (await entries(people, "ada", "user_change"))[0]

    assert entry["subject"] == {
        "id": user_id,
        "user_id": user_id,
        "fields": ["password", "role"],
        "role": "admin",
    }
    assert isinstance(entry["key_id"], int)


async def test_an_attempt_without_the_role_is_a_refusal(people: People, slug: str) -> None:
    """It is known who tried."""
    answer = await people.olga.call("PATCH", "/settings/", {"log_level": "DEBUG"})
    entry = (await entries(people, "olga", "settings_change"))[0]

    assert answer.status_code == 403
    assert (entry["outcome"], entry["subject"]) == ("refused", {})


async def test_keys_credentials_and_settings_are_entries(
    people: People, eve: tuple[str, Api]
) -> None:
    """Each act in its order, with what it was done to."""
    name, api = eve
    key = await api.post("/users/me/keys", {"name": "ci"})
    await api.call("DELETE", f"/users/me/keys/{key['id']}")
    detail = {"provider_type": "anthropic", "api_key": "sk-nobody-sees-this"}
    body = {"name": "m", "credential_type": "llm", "detail": detail}
    credential = (await api.post("/credentials/", body))["id"]
    await api.get(f"/credentials/{credential}/")
    await api.call("PATCH", f"/credentials/{credential}/", {"name": "n"})
    await api.call("DELETE", f"/credentials/{credential}/")
    await people.ada.call("PATCH", "/settings/", {"log_level": "INFO"})
    found = [(entry["kind"], entry["subject"]) for entry in await entries(people, name)]

    here = {"credential_id": credential}
    assert found[::-1][1:] == [
        ("key_create", {"id": key["id"]}),
        ("key_revoke", {"key_id": key["id"]}),
        ("credential_create", {"id": credential}),
        ("credential_read", here | {"id": credential}),
        ("credential_change", here | {"id": credential, "fields": ["name"]}),
        ("credential_delete", here),
    ]
    assert (await entries(people, "ada", "settings_change"))[0]["subject"] == {
        "fields": ["log_level"]
    }


async def test_the_second_factor_is_entries_without_its_secrets(
    people: People, eve: tuple[str, Api]
) -> None:
    """Set up, a wrong code, on, and the code step of a login."""
    name, api = eve
    secret = (await api.post("/auth/mfa/setup/"))["secret"]
    totp = pyotp.TOTP(secret)
    now = Clock().now()
    await api.call("POST", "/auth/mfa/verify/", {"code": "000000"})
    await api.post("/auth/mfa/verify/", {"code": totp.at(now)})
    await people.anyone.call("POST", "/auth/token/", {"username": name, "password": PASSWORD})
    code = {"username": name, "code": totp.at(now + timedelta(seconds=30))}
    await people.anyone.call("POST", "/auth/mfa/login-verify/", code)
    found = await entries(people, name)

    assert [(entry["kind"], entry["outcome"]) for entry in found[::-1][1:]] == [
        ("mfa_setup", "done"),
        ("mfa_enable", "refused"),
        ("mfa_enable", "done"),
        ("login", "done"),
        ("login_code", "done"),
    ]
    assert found[1]["subject"] == {"requires_mfa": True}
    assert secret not in json.dumps(found)


async def test_every_entry_is_a_log_line(people: People, site: Site, eve: tuple[str, Api]) -> None:
    """For those who collect logs elsewhere."""
    lines = map(json.loads, site.server.log.read_text().splitlines())
    said = [
        (line["kind"], line["outcome"], line["peer"])
        for line in lines
        if line["event"] == "audit" and line.get("subject", {}).get("requires_mfa") is False
    ]

    assert ("login", "done", "127.0.0.1") in said


async def test_only_admins_read_it(people: People) -> None:
    """And an unknown kind is a mistake of the reader."""
    normal = await people.olga.call("GET", "/system/audit/")
    unknown = await people.ada.call("GET", "/system/audit/?kind=gossip")

    assert (normal.status_code, normal.json()["detail"]) == (403, "Admin access required.")
    assert unknown.status_code == 422


async def test_it_is_read_in_pages(people: People, eve: tuple[str, Api]) -> None:
    """Newest first."""
    name, api = eve
    for number in range(3):
        await api.post("/users/me/keys", {"name": f"k{number}"})
    whole = await entries(people, name, "key_create")
    page = await people.ada.get(f"/system/audit/?user={name}&kind=key_create&limit=1&offset=1")

    assert page == {"items": [whole[1]], "total": 3}
    assert whole[0]["id"] > whole[1]["id"] > whole[2]["id"]


@pytest.mark.parametrize(
    "route",
    [
        route
        for route in API_ROUTES
        if route.section in {"auth", "users", "credentials", "settings", "beyond"}
        and route.method != "GET"
    ],
    ids=repr,
)
def test_every_change_of_these_sections_is_an_act(route: Any) -> None:
    """But one that only looks at the machine again."""
    assert route.act is not None or route.path == "/settings/recheck-environment/"


async def test_refusals_never_push_out_what_was_done(store: Store) -> None:
    """Both are bounded, each for itself."""
    now = Clock().now()

    def fill(conn: Any) -> None:
        for number in range(1000):
            outcome = "done" if number % 10 == 0 else "refused"
            entry = NewEntry(kind="login", outcome=outcome)  # type: ignore[arg-type]
            insert_entry(conn, entry, created_at=now, keep=200)

    await store.write(fill)
    found, total = await store.read(
        lambda conn: list_entries(conn, kind=None, username=None, limit=1000, offset=0)
    )
    done = sum(entry.outcome == "done" for entry in found)

    assert done == 100
    assert 200 <= total - done <= 300
