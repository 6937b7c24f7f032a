"""The second factor over a real socket: on, off, reset. Contract: auth.md, MFA (TOTP)."""

import re
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from sqlalchemy import select

from pipelit.store import Store, schema
from pipelit.web.place import is_here
from tests.kit.accounts import AccountServer, Caller
from tests.kit.hand_clock import HandClock
from tests.kit.people import problems, providers, refusal
from tests.kit.phone import ADA, OFF, ON, WRONG, Phone, ada, answer_of, clock, phone, server, set_up
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "clock", "migrated", "phone", "providers", "server", "store", "store_url"]


async def test_setup_gives_a_secret_and_its_address(ada: Caller) -> None:
    """32 characters of base32, and a URI with exactly secret and issuer."""
    answer = await ada.post("/auth/mfa/setup/")

    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"secret", "provisioning_uri"}
    assert re.fullmatch("[A-Z2-7]{32}", body["secret"])
    assert body["provisioning_uri"] == (
        f"otpauth://totp/Pipelit:ada?secret={body['secret']}&issuer=Pipelit"
    )


async def test_the_username_is_percent_encoded_in_the_address(server: AccountServer) -> None:
    """Slashes, colons, spaces and letters of any language survive."""
    name = "a/b:c d?ä&=%"
    bob = await server.add_user("bob")
    await server.set_user("bob", username=name)

    answer = await bob.post("/auth/mfa/setup/")

    uri = urlsplit(answer.json()["provisioning_uri"])
    assert "/" not in uri.path.removeprefix("/")
    assert unquote(uri.path) == f"/Pipelit:{name}"
    assert parse_qs(uri.query) == {"secret": [answer.json()["secret"]], "issuer": ["Pipelit"]}


async def test_mfa_stays_off_until_verified(
    server: AccountServer, ada: Caller, clock: HandClock
) -> None:
    """Setup alone changes no login."""
    phone = await set_up(ada, clock)

    assert answer_of(await ada.get("/auth/mfa/status/")) == OFF
    assert (await server.anyone.post("/auth/token/", ADA)).json()["requires_mfa"] is False
    assert answer_of(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == ON
    assert answer_of(await ada.get("/auth/mfa/status/")) == ON
    assert (await ada.get("/auth/me/")).json() == {"username": "ada", "mfa_enabled": True}


async def test_a_second_setup_replaces_the_pending_secret(ada: Caller, clock: HandClock) -> None:
    """Only codes of the newest secret verify."""
    first, second = await set_up(ada, clock), await set_up(ada, clock)

    old = await ada.post("/auth/mfa/verify/", {"code": first.code()})
    new = await ada.post("/auth/mfa/verify/", {"code": second.code()})

    assert refusal(old) == (400, WRONG)
    assert answer_of(new) == ON


async def test_setup_and_verify_are_refused_while_mfa_is_on(ada: Caller, phone: Phone) -> None:
    """Whatever the code."""
    already_on = (400, "MFA is already enabled.")

    assert refusal(await ada.post("/auth/mfa/setup/")) == already_on
    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == already_on
    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.wrong()})) == already_on


async def test_verify_needs_setup(ada: Caller) -> None:
    """Without a pending secret there is nothing to compare with."""
    answer = await ada.post("/auth/mfa/verify/", {"code": "123456"})

    assert refusal(answer) == (400, "Call /mfa/setup/ first.")


async def test_keys_made_before_stay_valid(server: AccountServer, clock: HandClock) -> None:
    """Switching MFA on ends no session."""
    ada = await server.setup()
    session = (await server.anyone.post("/auth/token/", ADA)).json()["key"]
    phone = await set_up(ada, clock)
    await ada.post("/auth/mfa/verify/", {"code": phone.code()})

    assert (await server.with_key(session).get("/auth/me/")).status_code == 200


async def test_the_secret_is_encrypted_at_rest(store: Store, ada: Caller, clock: HandClock) -> None:
    """Neither the pending nor the verified secret lies in the database."""
    users = schema.users
    secret = (await ada.post("/auth/mfa/setup/")).json()["secret"]
    pending = await store.read(lambda conn: conn.scalar(select(users.c.totp_pending)))
    await ada.post("/auth/mfa/verify/", {"code": Phone(secret, clock).code()})
    row = await store.read(
        lambda conn: conn.execute(select(users.c.totp_secret, users.c.totp_pending)).one()
    )

    assert pending.startswith("enc:")
    assert secret not in pending
    assert tuple(row) == (pending, None)


@pytest.mark.parametrize("path", ["verify", "disable", "login-verify"])
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("12ab56", "must match ^[0-9]{6}$"),
        ("12345", "must match ^[0-9]{6}$"),
        ("1234567", "must match ^[0-9]{6}$"),
        ("123456\n", "must match ^[0-9]{6}$"),
        ("१२३४५६", "must match ^[0-9]{6}$"),
        ("", "must match ^[0-9]{6}$"),
        (123456, "must be a string"),
        (None, "must not be null"),
    ],
)
async def test_a_code_is_six_ascii_digits(
    ada: Caller, path: str, code: object, problem: str
) -> None:
    """Anything else breaks the schema, before anything is asked of the account."""
    answer = await ada.post(f"/auth/mfa/{path}/", {"username": "ada", "code": code})

    assert problems(answer) == [f"body.code: {problem}"]


async def test_disable_wants_a_right_code(server: AccountServer, ada: Caller, phone: Phone) -> None:
    """Then a login is the password alone, and keys stay valid."""
    assert refusal(await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})) == (400, WRONG)
    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF
    assert answer_of(await ada.get("/auth/mfa/status/")) == OFF
    assert len((await server.anyone.post("/auth/token/", ADA)).json()["key"]) == 43


async def test_disable_is_refused_while_mfa_is_off(ada: Caller) -> None:
    """Also with a secret pending."""
    await ada.post("/auth/mfa/setup/")

    answer = await ada.post("/auth/mfa/disable/", {"code": "123456"})

    assert refusal(answer) == (400, "MFA is not enabled.")


async def test_after_disable_everything_begins_anew(
    ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """No secret is pending, and the step used last is forgotten with its secret."""
    await ada.post("/auth/mfa/disable/", {"code": phone.code(1)})

    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == (
        400,
        "Call /mfa/setup/ first.",
    )
    fresh = await set_up(ada, clock)
    assert answer_of(await ada.post("/auth/mfa/verify/", {"code": fresh.code(-1)})) == ON


async def test_reset_needs_no_code(server: AccountServer, ada: Caller, phone: Phone) -> None:
    """Only a key and this machine; it works again when MFA is off."""
    assert answer_of(await ada.post("/auth/mfa/reset/")) == OFF
    assert answer_of(await ada.post("/auth/mfa/reset/")) == OFF
    assert answer_of(await ada.get("/auth/mfa/status/")) == OFF
    assert (await server.anyone.post("/auth/token/", ADA)).json()["requires_mfa"] is False


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "x-real-ip"])
async def test_reset_is_refused_through_a_proxy(
    server: AccountServer, ada: Caller, phone: Phone, header: str
) -> None:
    """Behind one everybody looks local."""
    key = (await ada.post("/users/me/keys", {"name": "ci"})).json()["key"]

    answer = await server.client.post(
        "/api/v1/auth/mfa/reset/", headers={"Authorization": f"Bearer {key}", header: "127.0.0.1"}
    )

    assert refusal(answer) == (403, "MFA reset only allowed from localhost.")
    assert answer_of(await ada.get("/auth/mfa/status/")) == ON


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:127.9.9.9", True),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::2", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback_is_what_the_contract_lists(peer: str, expected: bool) -> None:
    """127.0.0.0/8, ::1 and ::ffff:127.0.0.0/104; `Host` is never consulted."""
    assert is_here(peer, {"host": "localhost"}) is expected


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/auth/mfa/setup/"),
        ("POST", "/auth/mfa/verify/"),
        ("POST", "/auth/mfa/disable/"),
        ("GET", "/auth/mfa/status/"),
        ("POST", "/auth/mfa/reset/"),
    ],
)
async def test_nobody_gets_in_without_a_key(server: AccountServer, method: str, path: str) -> None:
    """Every endpoint but the login step needs one."""
    answer = await server.client.request(method, f"/api/v1{path}")

    assert refusal(answer) == (401, "Invalid or missing API key.")
