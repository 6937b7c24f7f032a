"""Keys made by hand, to the second. Contract: beyond.md §7."""

from datetime import timedelta

import pytest
from sqlalchemy import insert

from pipelit.clock import Ids
from pipelit.errors import BadRequest, Unauthenticated
from pipelit.services.api_keys import KeyEvents
from pipelit.services.authenticator import Authenticator
from pipelit.services.user_keys import UserKeysService
from pipelit.store import Store
from pipelit.store.schema import users
from tests.services.conftest import HandClock


@pytest.fixture
async def service(store: Store, clock: HandClock, events: KeyEvents) -> UserKeysService:
    row = {"username": "ada", "created_at": clock.now()}
    await store.write(lambda conn: conn.execute(insert(users).values(**row)).rowcount)
    return UserKeysService(store, clock, Ids.seeded(1), events)


async def test_a_key_that_ends_now_has_ended(service: UserKeysService, clock: HandClock) -> None:
    """The future begins after this instant."""
    with pytest.raises(BadRequest, match=r"^expires_at must be in the future\.$"):
        await service.create(1, name="ci", expires_at=clock.now())


async def test_a_key_works_until_its_end(
    service: UserKeysService, clock: HandClock, authenticator: Authenticator
) -> None:
    """And not at it."""
    end = clock.now() + timedelta(seconds=10)
    made = await service.create(1, name="ci", expires_at=end)

    clock.advance(9)
    assert (await authenticator.authenticate(made.key)).username == "ada"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match=r"^API key has expired\.$"):
        await authenticator.authenticate(made.key)


async def test_no_key_is_shown_by_repr(service: UserKeysService) -> None:
    """A log line or traceback that shows the answer shows no key."""
    made = await service.create(1, name="ci")

    assert made.key not in repr(made)
