"""Keys in, principals out. Contract: README.md §2."""

import math
from datetime import timedelta
from functools import partial

import pytest
import trio
import trio.testing
from sqlalchemy import Connection, delete, insert, select, update

from pipelit.errors import Unauthenticated
from pipelit.services.api_keys import KeyEvents, describe_key, hash_key
from pipelit.services.authenticator import Authenticator
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import keys
from pipelit.store.schema import api_keys, users
from tests.services.conftest import HandClock

KEY = "k" * 43


async def add_user(store: Store, clock: HandClock, **values: object) -> int:
    row = {"username": "ada", "created_at": clock.now(), **values}
    statement = insert(users).values(**row).returning(users.c.id)
    return await store.write(lambda conn: conn.scalar(statement))


async def add_key(
    store: Store, clock: HandClock, user_id: int, key: str = KEY, *, lives: float = math.inf
) -> int:
    new = describe_key(key, name="test", created_at=clock.now())
    key_id = await store.write(partial(keys.insert_key, user_id=user_id, key=new))
    if lives < math.inf:
        await set_key(store, key_id, expires_at=clock.now() + timedelta(seconds=lives))
    return key_id


async def set_key(store: Store, key_id: int, **values: object) -> None:
    statement = update(api_keys).where(api_keys.c.id == key_id).values(**values)
    await store.write(lambda conn: conn.execute(statement).rowcount)


def last_used(conn: Connection) -> object:
    return conn.scalar(select(api_keys.c.last_used_at))


async def test_a_key_stands_for_its_user(
    store: Store, clock: HandClock, authenticator: Authenticator
) -> None:
    """The principal names user, role and key."""
    user_id = await add_user(store, clock, role="admin")
    key_id = await add_key(store, clock, user_id)

    principal = await authenticator.authenticate(KEY)

    assert principal == Principal(user_id=user_id, username="ada", role="admin", key_id=key_id)


async def test_an_agents_key_acts_for_its_creator_as_a_normal_user(
    store: Store, clock: HandClock, authenticator: Authenticator
) -> None:
    """An agent user is normal, whatever its creator is."""
    creator = await add_user(store, clock, role="admin")
    agent = await add_user(
        store, clock, username="agent_a_b", kind="agent", role="admin", created_by_id=creator
    )
    await add_key(store, clock, agent)

    principal = await authenticator.authenticate(KEY)

    assert (principal.role, principal.is_agent, principal.acts_for) == ("normal", True, creator)
    assert not principal.is_admin


@pytest.mark.parametrize("key", ["", "x", "K" * 43, "\udc80", "k" * 42])
async def test_an_unknown_key_is_refused(
    store: Store, clock: HandClock, authenticator: Authenticator, key: str
) -> None:
    """Whatever text is presented, an unknown key is an answer, not a failure."""
    await add_key(store, clock, await add_user(store, clock))

    with pytest.raises(Unauthenticated, match=r"^Invalid or missing API key\.$"):
        await authenticator.authenticate(key)


async def test_a_revoked_key_is_refused_from_the_next_request_on(
    store: Store, clock: HandClock, authenticator: Authenticator, events: KeyEvents
) -> None:
    """A key in the cache is dropped the moment its revocation is announced."""
    key_id = await add_key(store, clock, await add_user(store, clock))
    await authenticator.authenticate(KEY)
    await set_key(store, key_id, is_active=False)

    events.revoke([key_id])

    with pytest.raises(Unauthenticated, match=r"^API key has been revoked\.$"):
        await authenticator.authenticate(KEY)


async def test_a_revocation_during_the_look_up_is_not_missed(
    store: Store, clock: HandClock, events: KeyEvents
) -> None:
    """What was read before a revocation is read again after it."""
    key_id = await add_key(store, clock, await add_user(store, clock))

    class RevokesMeanwhile(Store):
        def __init__(self) -> None:
            self.reads = 0

        async def read(self, query, *, timeout=None):  # type: ignore[no-untyped-def]
            row = await store.read(query, timeout=timeout)
            self.reads += 1
            if self.reads == 1:
                await set_key(store, key_id, is_active=False)
                events.revoke([key_id])
            return row

    authenticator = Authenticator(RevokesMeanwhile(), clock, events)

    with pytest.raises(Unauthenticated, match="revoked"):
        await authenticator.authenticate(KEY)


async def test_a_key_is_refused_when_its_time_is_over(
    store: Store, clock: HandClock, authenticator: Authenticator
) -> None:
    """Expiry needs no event: the cached key knows its end, and so does the row."""
    await add_key(store, clock, await add_user(store, clock), lives=60)
    await authenticator.authenticate(KEY)
    clock.advance(60)

    for fresh in (authenticator, Authenticator(store, clock, KeyEvents())):
        with pytest.raises(Unauthenticated, match=r"^API key has expired\.$"):
            await fresh.authenticate(KEY)


async def test_the_key_of_a_disabled_user_is_refused(
    store: Store, clock: HandClock, authenticator: Authenticator
) -> None:
    """A good key of a disabled account names no user."""
    await add_key(store, clock, await add_user(store, clock, is_active=False))

    with pytest.raises(Unauthenticated, match=r"^User not found\.$"):
        await authenticator.authenticate(KEY)


async def test_use_is_noted_at_most_once_a_minute(
    store: Store, clock: HandClock, authenticator: Authenticator
) -> None:
    """`last_used_at` moves with the first use and then a minute later."""
    await add_key(store, clock, await add_user(store, clock))
    first = clock.now()

    await authenticator.authenticate(KEY)
    assert await store.read(last_used) == first
    clock.advance(59)
    await authenticator.authenticate(KEY)
    assert await store.read(last_used) == first
    clock.advance(1)
    await authenticator.authenticate(KEY)

    assert await store.read(last_used) == clock.now()


async def test_reading_goes_on_when_the_use_cannot_be_noted(
    store: Store, clock: HandClock, events: KeyEvents
) -> None:
    """A store that takes no writes does not lock its readers out."""
    await add_key(store, clock, await add_user(store, clock))
    store.stop()
    await trio.testing.wait_all_tasks_blocked()

    principal = await Authenticator(store, clock, events).authenticate(KEY)

    assert principal.username == "ada"


async def test_the_cache_is_bounded(store: Store, clock: HandClock, events: KeyEvents) -> None:
    """Only the keys used last are remembered."""
    user_id = await add_user(store, clock)
    authenticator = Authenticator(store, clock, events, capacity=2)

    for key in ("a", "b", "c"):
        await add_key(store, clock, user_id, key)

    for key in ("a", "b", "c", "b"):
        await authenticator.authenticate(key)

    assert list(authenticator._known) == [hash_key("c"), hash_key("b")]


async def test_a_watcher_learns_of_a_revocation_at_once(
    store: Store, clock: HandClock, authenticator: Authenticator, events: KeyEvents
) -> None:
    """The end of its own key is told, that of another's is not."""
    key_id = await add_key(store, clock, await add_user(store, clock))
    principal = await authenticator.authenticate(KEY)

    async with authenticator.watch(principal) as ended:
        events.revoke([key_id + 1])
        assert not ended.is_set()
        events.revoke([key_id])
        assert ended.is_set()


async def test_a_watcher_that_comes_late_learns_it_too(
    store: Store, clock: HandClock, authenticator: Authenticator, events: KeyEvents
) -> None:
    """A key revoked, or gone, between its presentation and the watch has ended."""
    key_id = await add_key(store, clock, await add_user(store, clock))
    principal = await authenticator.authenticate(KEY)
    await set_key(store, key_id, is_active=False)
    events.revoke([key_id])

    async with authenticator.watch(principal) as ended:
        assert ended.is_set()
    await store.write(lambda conn: conn.execute(delete(api_keys)).rowcount)
    async with authenticator.watch(principal) as ended:
        assert ended.is_set()


@pytest.mark.parametrize("revoke", [True, False])
async def test_a_watcher_learns_that_a_key_expired(
    store: Store,
    clock: HandClock,
    authenticator: Authenticator,
    events: KeyEvents,
    revoke: bool,
) -> None:
    """A key with an end ends at that time, or before it by revocation."""
    lives = 3600 if revoke else 0.01
    key_id = await add_key(store, clock, await add_user(store, clock), lives=lives)
    principal = await authenticator.authenticate(KEY)

    async with authenticator.watch(principal) as ended:
        assert not ended.is_set()
        if revoke:
            events.revoke([key_id])
        with trio.fail_after(1):
            await ended.wait()


def test_an_event_nobody_holds_is_forgotten() -> None:
    """The registry holds no more events than there are watchers."""
    events = KeyEvents()
    kept = events.watch(1)
    events.watch(2)

    assert events.watch(1) is kept
    assert list(events._watched) == [1]


def test_of_a_key_only_hash_and_ends_are_kept() -> None:
    """What goes to the store does not hold the key."""
    key = "abcdefgh" + "-" * 27 + "12345678"
    new = describe_key(key, name="x", created_at=HandClock().now())

    assert (new.prefix, new.suffix, len(new.key_hash)) == ("abcdefgh", "12345678", 64)
    assert key not in repr(new)
