"""The second factor over a real socket, on a clock moved by hand. Contract: auth.md, MFA (TOTP)."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2
import pyotp
import pytest
import trio
from sqlalchemy import select

from pipelit.store import Store, schema
from pipelit.web.place import is_here
from tests.kit.accounts import AccountServer, Caller, FakeProviders, account_server
from tests.kit.hand_clock import HandClock
from tests.kit.people import problems, providers, refusal
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "providers", "store", "store_url"]

PASSWORD = "correct horse"
ADA = {"username": "ada", "password": PASSWORD}
ON, OFF = (200, {"mfa_enabled": True}), (200, {"mfa_enabled": False})
WRONG = "Invalid TOTP code."
NO_PERMIT = (401, "Invalid credentials.")
TOO_MANY = (429, "Too many MFA attempts. Please wait a minute.")
LOCKED = (
    429,
    "Account temporarily locked due to too many failed attempts. Try again later.",
)


@pytest.fixture
def clock() -> HandClock:
    """The server's wall clock."""
    return HandClock()


@pytest.fixture
async def server(
    store: Store, tmp_path: Path, providers: FakeProviders, clock: HandClock
) -> AsyncIterator[AccountServer]:
    """A server without users, on the test's clock."""
    async with account_server(store, tmp_path, providers, clock=clock) as running:
        yield running


@pytest.fixture
async def ada(server: AccountServer) -> Caller:
    """The admin, user 1, without MFA."""
    return await server.setup()


class Phone:
    """An authenticator app."""

    def __init__(self, secret: str, clock: HandClock) -> None:
        self._totp = pyotp.TOTP(secret)
        self._clock = clock

    def code(self, steps: int = 0) -> str:
        """Return the code of now, or of some steps later."""
        return self._totp.at(self._clock.now(), counter_offset=steps)

    def wrong(self) -> str:
        """Return a code of no step near now."""
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(code for code in map("{:06}".format, range(10)) if code not in near)


@pytest.fixture
async def phone(ada: Caller, clock: HandClock) -> Phone:
    """The app with the secret of ada, who has MFA; the code of now is not used up."""
    phone = await set_up(ada, clock)
    assert answer_of(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == ON
    clock.advance(60)
    return phone


async def set_up(caller: Caller, clock: HandClock) -> Phone:
    return Phone((await caller.post("/auth/mfa/setup/")).json()["secret"], clock)


def answer_of(answer: httpx2.Response) -> tuple[int, object]:
    return answer.status_code, answer.json()


async def give_password(server: AccountServer) -> None:
    answer = await server.anyone.post("/auth/token/", ADA)
    assert answer_of(answer) == (200, {"key": "", "requires_mfa": True})


async def give_code(server: AccountServer, code: str, username: str = "ada") -> httpx2.Response:
    return await server.anyone.post("/auth/mfa/login-verify/", {"username": username, "code": code})


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


async def test_login_verify_wants_name_and_code(server: AccountServer) -> None:
    """Both at once."""
    assert problems(await server.anyone.post("/auth/mfa/login-verify/", {})) == [
        "body.username: field required",
        "body.code: field required",
    ]


async def test_a_login_takes_password_and_code(
    server: AccountServer, ada: Caller, phone: Phone
) -> None:
    """Both give a session key like any other."""
    await give_password(server)
    answer = await give_code(server, phone.code())

    key = answer.json()["key"]
    assert answer_of(answer) == (200, {"key": key, "requires_mfa": False})
    assert len(key) == 43
    assert (await server.with_key(key).get("/auth/me/")).json()["username"] == "ada"
    assert (await ada.get("/users/me/keys")).json()[0]["name"] == "session"


@pytest.mark.parametrize(("steps", "is_right"), [(-2, False), (-1, True), (1, True), (2, False)])
async def test_a_code_is_good_one_step_early_or_late(
    server: AccountServer, phone: Phone, steps: int, is_right: bool
) -> None:
    """Clocks may differ by 30 s."""
    await give_password(server)

    answer = await give_code(server, phone.code(steps))

    assert answer.status_code == (200 if is_right else 401)


async def test_a_wrong_code_is_told(server: AccountServer, phone: Phone) -> None:
    """And the permit stays for another try."""
    await give_password(server)

    assert refusal(await give_code(server, phone.wrong())) == (401, WRONG)
    assert (await give_code(server, phone.code())).status_code == 200


async def test_without_the_password_no_code_helps(server: AccountServer, phone: Phone) -> None:
    """The right code, unknown users, users without MFA: one answer."""
    await server.add_user("bob")
    wrong = await server.anyone.post("/auth/token/", {**ADA, "password": "no"})
    answers = [await give_code(server, phone.code(), name) for name in ("ada", "eve", "bob")]

    assert wrong.status_code == 401
    assert {refusal(answer) for answer in answers} == {NO_PERMIT}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert len({answer.content for answer in answers}) == 1


async def test_the_permit_of_one_user_is_not_anothers(
    server: AccountServer, phone: Phone, clock: HandClock
) -> None:
    """Bob's password does not open the way to ada's code."""
    bob = await server.add_user("bob")
    await bob.patch("/users/me", {"password": PASSWORD})
    bobs = await set_up(bob, clock)
    await bob.post("/auth/mfa/verify/", {"code": bobs.code()})
    await server.anyone.post("/auth/token/", {"username": "bob", "password": PASSWORD})

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT


@pytest.mark.parametrize(("seconds", "status"), [(299, 200), (300, 401)])
async def test_a_permit_lasts_300_seconds(
    server: AccountServer, phone: Phone, clock: HandClock, seconds: int, status: int
) -> None:
    """After that the password is asked again."""
    await give_password(server)
    clock.advance(seconds)

    assert (await give_code(server, phone.code())).status_code == status


async def test_a_success_consumes_the_permit(
    server: AccountServer, phone: Phone, clock: HandClock
) -> None:
    """A later login starts again with the password."""
    await give_password(server)
    await give_code(server, phone.code())
    clock.advance(30)

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT
    await give_password(server)
    assert (await give_code(server, phone.code())).status_code == 200


async def test_a_new_password_voids_the_permit(
    server: AccountServer, ada: Caller, phone: Phone
) -> None:
    """The permit was for the old one."""
    await give_password(server)
    await ada.patch("/users/me", {"password": "battery staple"})

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT


async def test_a_disabled_user_does_not_pass(server: AccountServer, phone: Phone) -> None:
    """Even between the two steps."""
    await give_password(server)
    await server.set_user("ada", is_active=False)

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT


async def test_mfa_switched_off_between_the_steps_ends_the_login(
    server: AccountServer, ada: Caller, phone: Phone
) -> None:
    """There is no code any more that could be right."""
    await give_password(server)
    await ada.post("/auth/mfa/reset/")

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT


async def test_a_used_code_is_wrong(server: AccountServer, phone: Phone) -> None:
    """A code logs in once; the next step's code is usable at once."""
    await give_password(server)
    used = phone.code()
    assert (await give_code(server, used)).status_code == 200
    await give_password(server)

    assert refusal(await give_code(server, used)) == (401, WRONG)
    assert refusal(await give_code(server, phone.code(-1))) == (401, WRONG)
    assert (await give_code(server, phone.code(1))).status_code == 200


async def test_the_used_step_is_shared_by_verify_login_and_disable(
    server: AccountServer, ada: Caller, clock: HandClock
) -> None:
    """Verify, then log in within 30 s with the next code, then disable with one later still."""
    phone = await set_up(ada, clock)
    await ada.post("/auth/mfa/verify/", {"code": phone.code()})
    await give_password(server)

    assert refusal(await give_code(server, phone.code())) == (401, WRONG)
    assert (await give_code(server, phone.code(1))).status_code == 200
    assert refusal(await ada.post("/auth/mfa/disable/", {"code": phone.code(1)})) == (400, WRONG)
    clock.advance(60)
    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_of_many_right_codes_together_one_succeeds(
    server: AccountServer, phone: Phone
) -> None:
    """The others come too late, with whatever answer."""
    await give_password(server)
    statuses: list[int] = []

    async def attempt() -> None:
        statuses.append((await give_code(server, phone.code())).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)

    assert sorted(statuses) == [200] + [401] * 7


async def test_of_many_right_codes_together_one_disables(ada: Caller, phone: Phone) -> None:
    """The others find MFA off."""
    answers: list[tuple[int, object]] = []

    async def attempt() -> None:
        answers.append(answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(attempt)

    assert answers.count(OFF) == 1
    assert answers.count((400, {"detail": "MFA is not enabled."})) == 3


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


async def test_the_sixth_check_within_a_minute_is_refused(
    server: AccountServer, ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """Successes count too, verify, disable and login together; another user is not affected."""
    await give_password(server)
    assert (await give_code(server, phone.code())).status_code == 200
    clock.advance(10)
    for _ in range(4):
        await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})
    await give_password(server)

    sixth = await give_code(server, phone.code(1))
    other = await ada.post("/auth/mfa/disable/", {"code": phone.code(1)})

    assert (refusal(sixth), refusal(other)) == (TOO_MANY, TOO_MANY)
    assert sixth.headers["Retry-After"] == "50"
    bob = await server.add_user("bob")
    bobs = await set_up(bob, clock)
    assert answer_of(await bob.post("/auth/mfa/verify/", {"code": bobs.code()})) == ON


async def test_after_retry_after_the_next_check_is_let_through(
    ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """To the second; the refused ones in between did not count."""
    for _ in range(5):
        await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})
    clock.advance(59)
    refused = await ada.post("/auth/mfa/disable/", {"code": phone.code()})
    clock.advance(1)

    assert (refusal(refused), refused.headers["Retry-After"]) == (TOO_MANY, "1")
    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_verify_is_limited_too(ada: Caller, clock: HandClock) -> None:
    """A pending secret can be guessed no faster."""
    phone = await set_up(ada, clock)
    for _ in range(5):
        await ada.post("/auth/mfa/verify/", {"code": phone.wrong()})

    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == TOO_MANY


async def guess_wrong(caller: Caller, phone: Phone, clock: HandClock, times: int) -> None:
    for _ in range(times):
        answer = await caller.post("/auth/mfa/disable/", {"code": phone.wrong()})
        assert refusal(answer) == (400, WRONG)
        clock.advance(15)


async def test_ten_wrong_codes_in_a_row_lock_for_900_seconds(
    server: AccountServer, ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """The right code, too, is refused until then; `Retry-After` says what is left."""
    await guess_wrong(ada, phone, clock, 10)
    locked = await ada.post("/auth/mfa/disable/", {"code": phone.code()})
    await give_password(server)
    at_login = await give_code(server, phone.code())
    clock.advance(884)
    nearly = await ada.post("/auth/mfa/disable/", {"code": phone.code()})
    clock.advance(1)

    assert [refusal(answer) for answer in (locked, at_login, nearly)] == [LOCKED] * 3
    assert (locked.headers["Retry-After"], nearly.headers["Retry-After"]) == ("885", "1")
    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_after_a_lockout_the_count_begins_anew(
    ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """One wrong code does not lock again."""
    await guess_wrong(ada, phone, clock, 10)
    clock.advance(900)

    await guess_wrong(ada, phone, clock, 9)
    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_a_right_code_resets_the_count(
    server: AccountServer, ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """Nine wrong, one right, nine wrong: not locked."""
    await guess_wrong(ada, phone, clock, 9)
    await give_password(server)
    assert (await give_code(server, phone.code())).status_code == 200
    clock.advance(60)
    await guess_wrong(ada, phone, clock, 9)

    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_900_quiet_seconds_reset_the_count(
    ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """Wrong codes long ago are forgotten."""
    await guess_wrong(ada, phone, clock, 9)
    clock.advance(885)
    await guess_wrong(ada, phone, clock, 9)

    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_what_is_not_a_check_does_not_count(
    server: AccountServer, ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """401 without a permit, 422 and 429 bring no lockout nearer."""
    for _ in range(20):
        assert refusal(await give_code(server, phone.wrong())) == NO_PERMIT
        assert (await ada.post("/auth/mfa/disable/", {"code": "x"})).status_code == 422
    for _ in range(5):
        await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})
    for _ in range(20):
        answer = await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})
        assert refusal(answer) == TOO_MANY
    clock.advance(60)

    assert answer_of(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == OFF


async def test_limits_are_shown_only_after_the_password(
    server: AccountServer, ada: Caller, phone: Phone
) -> None:
    """Who has no permit does not learn that the account is throttled."""
    for _ in range(6):
        await ada.post("/auth/mfa/disable/", {"code": phone.wrong()})

    assert refusal(await give_code(server, phone.code())) == NO_PERMIT


async def test_state_comes_before_limits(ada: Caller, phone: Phone, clock: HandClock) -> None:
    """A locked out user is first told that MFA is on, off or not set up."""
    await guess_wrong(ada, phone, clock, 10)

    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == (
        400,
        "MFA is already enabled.",
    )
    await ada.post("/auth/mfa/reset/")
    assert refusal(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == (
        400,
        "MFA is not enabled.",
    )
    assert refusal(await ada.post("/auth/mfa/verify/", {"code": phone.code()})) == (
        400,
        "Call /mfa/setup/ first.",
    )


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
