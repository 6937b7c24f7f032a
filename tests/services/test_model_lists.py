"""Model lists are known from the last time somebody asked a provider for them."""

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import insert

from pipelit.services.credentials import CredentialsService
from pipelit.services.gateway import GatewaySync
from pipelit.services.model_lists import MAX_LISTS, ModelLists
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries.credentials import find_credential
from pipelit.store.schema import users
from pipelit.store.secrets import Secrets
from tests.kit.accounts import FakeProviders
from tests.kit.gateway import no_gateway
from tests.services.conftest import HandClock

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OWNER = Principal(user_id=1, username="ada", role="normal", key_id=1)


def test_an_empty_answer_is_no_list() -> None:
    """The provider did not answer: what it said before still stands."""
    lists = ModelLists()
    lists.remember(1, NOW, ["a"])

    lists.remember(1, NOW, [])

    assert lists.find(1, NOW) == ("a",)
    assert lists.find(2, NOW) is None


def test_lists_are_kept_up_to_a_limit() -> None:
    """The oldest goes."""
    lists = ModelLists()
    for number in range(MAX_LISTS + 1):
        lists.remember(number, NOW, ["a"])

    assert lists.find(0, NOW) is None
    assert lists.find(MAX_LISTS, NOW) == ("a",)


@pytest.mark.parametrize("is_changed", [False, True])
async def test_whoever_asks_for_models_makes_them_known(
    store: Store, clock: HandClock, secrets: Secrets, providers: FakeProviders, is_changed: bool
) -> None:
    """For the credential as it was asked: a change makes the list void."""
    row = {"id": 1, "username": "ada", "created_at": NOW}
    await store.write(lambda conn: conn.execute(insert(users), row).rowcount)
    lists = ModelLists()
    service = CredentialsService(
        store,
        clock,
        secrets,
        test_provider=providers.test,
        list_models=providers.list,
        gateway=GatewaySync(no_gateway()),
        model_lists=lists,
    )
    made = await service.create(OWNER, name="C", credential_type="llm", detail={"api_key": "k"})
    providers.models = ["m-1"]

    await service.list_models(made.id)
    if is_changed:
        clock.advance(1)
        await service.change(OWNER, made.id, detail={"api_key": "another"})

    stored = await store.read(partial(find_credential, credential_id=made.id))
    assert stored is not None
    assert lists.find(made.id, stored.updated_at) == (None if is_changed else ("m-1",))
