"""How fast codes can be guessed, on a clock moved by hand. Contract: auth.md, Rate, Lockout."""

from tests.kit.accounts import AccountServer, Caller
from tests.kit.hand_clock import HandClock
from tests.kit.people import providers, refusal
from tests.kit.phone import (
    NO_PERMIT,
    OFF,
    ON,
    WRONG,
    Phone,
    ada,
    answer_of,
    clock,
    give_code,
    give_password,
    phone,
    server,
    set_up,
)
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "clock", "migrated", "phone", "providers", "server", "store", "store_url"]

TOO_MANY = (429, "Too many MFA attempts. Please wait a minute.")
LOCKED = (429, "Account temporarily locked due to too many failed attempts. Try again later.")


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


async def test_a_used_code_counts_as_a_wrong_one(
    server: AccountServer, ada: Caller, phone: Phone, clock: HandClock
) -> None:
    """Ten replays lock like ten guesses."""
    await give_password(server)
    used = phone.code(1)
    await give_code(server, used)
    for _ in range(10):
        clock.advance(15)
        answer = await ada.post("/auth/mfa/disable/", {"code": used})
        assert refusal(answer) == (400, WRONG)

    assert refusal(await ada.post("/auth/mfa/disable/", {"code": phone.code()})) == LOCKED


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
