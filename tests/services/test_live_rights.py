"""Rights of an open socket follow its user. Contract: websocket.md, README.md §9."""

from functools import partial

import pytest
from sqlalchemy import Connection, insert, update

from pipelit.actors.hub import Board, Copy, Subscription
from pipelit.services.api_keys import KeyEvents, describe_key
from pipelit.services.authenticator import Authenticator
from pipelit.services.live import LiveFeed
from pipelit.store import Store
from pipelit.store.queries import keys
from pipelit.store.schema import executions, users, workflows
from tests.kit.waiting import until
from tests.services.conftest import HandClock

KEY = "k" * 43


async def add_admin(store: Store, clock: HandClock) -> None:
    """Make owner 1, admin 2 with the key, and an execution of the owner's with one number."""
    now = clock.now()

    def add(conn: Connection) -> int:
        for name, role in (("owner", "normal"), ("ada", "admin")):
            conn.execute(insert(users).values(username=name, role=role, created_at=now))
        flow = {"owner_id": 1, "name": "F", "slug": "f", "created_at": now, "updated_at": now}
        conn.execute(insert(workflows).values(**flow))
        run = {
            "id": "e",
            "created_seq": 1,
            "workflow_id": 1,
            "user_id": 1,
            "thread_id": "1:1",
            "status": "running",
            "source": "chat",
            "trigger": {},
            "limit_seconds": 60,
            "created_at": now,
            "last_activity_at": now,
            "last_seq": 7,
        }
        conn.execute(insert(executions).values(**run))
        return keys.insert_key(conn, 2, describe_key(KEY, name="test", created_at=now))

    await store.write(add)


async def set_role(store: Store, events: KeyEvents, role: str) -> None:
    changed = update(users).where(users.c.id == 2).values(role=role)
    await store.write(lambda conn: conn.execute(changed).rowcount)
    events.change([1])


def sees(subscription: Subscription, expected: bool) -> bool:
    return subscription.may_see(1) is expected


async def test_an_open_socket_sees_what_its_user_may_now(
    store: Store, clock: HandClock, authenticator: Authenticator, events: KeyEvents
) -> None:
    """A role taken away is taken from it, live and replayed, and given back; it stays open."""
    await add_admin(store, clock)
    board = Board()
    feed = LiveFeed(board, store, authenticator)
    principal = await authenticator.authenticate(KEY)
    heard: list[Copy] = []

    async with feed.open(principal, heard.append, lambda: None) as reader:
        reader.subscribe("execution:e")
        (subscription,) = board.readers("execution:e")
        seen = []
        for role in ("admin", "normal", "admin"):
            await set_role(store, events, role)
            await until(partial(sees, subscription, role == "admin"))
            seen.append(await feed.last_seq(principal, "e"))
        assert not reader.revoked.is_set()

    assert seen == [7, 0, 7]
    assert board.readers("execution:e") == ()


@pytest.mark.parametrize("text", ["\0", "\ud800", "e\0"])
async def test_what_can_be_no_id_is_an_unknown_execution(
    store: Store, clock: HandClock, authenticator: Authenticator, text: str
) -> None:
    """The database, which may refuse such text, is not asked for it."""
    await add_admin(store, clock)
    feed = LiveFeed(Board(), store, authenticator)
    principal = await authenticator.authenticate(KEY)

    assert await feed.last_seq(principal, text) == 0
    assert await feed.replay(principal, text, 0, 50) == []


async def test_another_role_is_another_principal(
    store: Store, clock: HandClock, authenticator: Authenticator, events: KeyEvents
) -> None:
    """At the next request, though the key is remembered."""
    await add_admin(store, clock)
    assert (await authenticator.authenticate(KEY)).is_admin

    await set_role(store, events, "normal")

    assert not (await authenticator.authenticate(KEY)).is_admin
