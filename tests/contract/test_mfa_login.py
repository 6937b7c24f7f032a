"""Logging in with two factors over a real socket. Contract: auth.md, MFA: Two factors, Replay."""

import pytest
import trio

from tests.kit.accounts import AccountServer, Caller
from tests.kit.hand_clock import HandClock
from tests.kit.people import problems, providers, refusal
from tests.kit.phone import (
    ADA,
    NO_PERMIT,
    OFF,
    PASSWORD,
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
