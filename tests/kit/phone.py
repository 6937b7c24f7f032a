"""An authenticator app, and ada who uses it, on a clock moved by hand. Import by name."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pyotp
import pytest

from pipelit.store import Store
from tests.kit.accounts import AccountServer, Caller, FakeProviders, account_server
from tests.kit.hand_clock import HandClock

PASSWORD = "correct horse"
ADA = {"username": "ada", "password": PASSWORD}
ON, OFF = (200, {"mfa_enabled": True}), (200, {"mfa_enabled": False})
WRONG = "Invalid TOTP code."
NO_PERMIT = (401, "Invalid credentials.")


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
    """Put a new secret of the caller into an app."""
    return Phone((await caller.post("/auth/mfa/setup/")).json()["secret"], clock)


def answer_of(answer: httpx2.Response) -> tuple[int, object]:
    """Return status and body."""
    return answer.status_code, answer.json()


async def give_password(server: AccountServer) -> None:
    """Do ada's first step."""
    answer = await server.anyone.post("/auth/token/", ADA)
    assert answer_of(answer) == (200, {"key": "", "requires_mfa": True})


async def give_code(server: AccountServer, code: str, username: str = "ada") -> httpx2.Response:
    """Try the second step."""
    return await server.anyone.post("/auth/mfa/login-verify/", {"username": username, "code": code})
