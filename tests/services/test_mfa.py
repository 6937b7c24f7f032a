"""The second factor below HTTP: what no client can arrange. Contract: auth.md, MFA."""

from collections.abc import Callable

import pyotp
import pytest
from sqlalchemy import insert, select, update

from pipelit.clock import Ids
from pipelit.errors import BadRequest, Unauthenticated
from pipelit.services.api_keys import KeyEvents
from pipelit.services.mfa import MfaService
from pipelit.services.permits import Permits
from pipelit.services.principal import Principal
from pipelit.services.sessions import Sessions
from pipelit.services.totp import find_step, make_secret
from pipelit.store import Store
from pipelit.store.schema import api_keys, users
from pipelit.store.secrets import Secrets
from tests.services.conftest import HandClock

ADA = Principal(user_id=1, username="ada", role="admin", key_id=1)


@pytest.fixture
def permits() -> Permits:
    return Permits()


@pytest.fixture
async def make(
    store: Store, clock: HandClock, events: KeyEvents, secrets: Secrets, permits: Permits
) -> Callable[[int], MfaService]:
    """Return a maker of servers on the same store, and make ada."""
    row = {"username": "ada", "password_hash": "hash", "created_at": clock.now()}
    await store.write(lambda conn: conn.execute(insert(users).values(**row)).rowcount)

    def make(seed: int) -> MfaService:
        ids = Ids.seeded(seed)
        sessions = Sessions(store, clock, ids, events)
        return MfaService(store, clock, ids, secrets, permits=permits, sessions=sessions)

    return make


async def switch_on(mfa: MfaService, clock: HandClock) -> pyotp.TOTP:
    totp = pyotp.TOTP((await mfa.setup(ADA)).secret)
    await mfa.verify(ADA, totp.at(clock.now()))
    clock.advance(60)
    return totp


async def count_keys(store: Store) -> int:
    return len(await store.read(lambda conn: conn.execute(select(api_keys.c.id)).all()))


async def test_a_code_counts_once_on_all_servers(
    make: Callable[[int], MfaService], clock: HandClock, permits: Permits, store: Store
) -> None:
    """The write that opens the session decides, not what a server read before."""
    one, two = make(1), make(2)
    totp = await switch_on(one, clock)
    permits.give(1, "hash", clock.now())
    stale = await two._load(ADA)
    await one.verify_login("ada", totp.at(clock.now()))
    permits.give(1, "hash", clock.now())

    class Late(Store):
        """Reads what was there before the other server's write."""

        def __init__(self) -> None:
            pass

        async def read(self, query, *, timeout=None):  # type: ignore[no-untyped-def]
            return stale

    two._store = Late()
    with pytest.raises(Unauthenticated, match=r"^Invalid TOTP code\.$"):
        await two.verify_login("ada", totp.at(clock.now()))

    assert await count_keys(store) == 1


async def test_a_secret_replaced_on_another_server_is_not_switched_on(
    make: Callable[[int], MfaService], clock: HandClock, store: Store
) -> None:
    """The code was of a secret that nobody has any more."""
    mfa = make(1)
    totp = pyotp.TOTP((await mfa.setup(ADA)).secret)
    stale = await mfa._load(ADA)
    await make(2).setup(ADA)

    async def load(_: Principal) -> object:
        return stale

    mfa._load = load  # type: ignore[method-assign, assignment]
    with pytest.raises(BadRequest, match=r"^Invalid TOTP code\.$"):
        await mfa.verify(ADA, totp.at(clock.now()))

    row = await store.read(lambda conn: conn.execute(select(users.c.mfa_enabled)).scalar_one())
    assert row is False


async def test_who_was_disabled_meanwhile_gets_no_session(
    make: Callable[[int], MfaService],
    clock: HandClock,
    store: Store,
    events: KeyEvents,
) -> None:
    """A login that overlaps with its user's end leaves no key behind."""
    make(1)
    off = update(users).values(is_active=False)
    await store.write(lambda conn: conn.execute(off).rowcount)

    assert await Sessions(store, clock, Ids.seeded(9), events).open(1) is None
    assert await count_keys(store) == 0


async def test_no_secret_is_shown_by_repr(make: Callable[[int], MfaService]) -> None:
    """A log line or traceback that shows the answer shows no secret."""
    mfa = make(1)
    answer = await mfa.setup(ADA)
    row = await mfa._load(ADA)

    assert answer.secret not in repr(answer)
    assert str(row.totp_pending) not in repr(row)


def test_a_step_is_found_within_one_of_now(clock: HandClock) -> None:
    """And never up to the one used last."""
    secret = make_secret(Ids.seeded(1))
    totp = pyotp.TOTP(secret)
    now = clock.now()
    current = totp.timecode(now)

    def find(steps: int, after: int | None) -> int | None:
        return find_step(secret, totp.generate_otp(current + steps), now, after=after)

    assert [find(n, None) for n in range(-2, 3)] == [None, current - 1, current, current + 1, None]
    assert [find(n, current) for n in range(-1, 2)] == [None, None, current + 1]


def test_secrets_differ() -> None:
    """Each is 160 new random bits."""
    ids = Ids()

    assert len({make_secret(ids) for _ in range(100)}) == 100
