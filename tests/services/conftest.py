from pathlib import Path

import pytest

from pipelit.clock import Ids
from pipelit.services.api_keys import KeyEvents
from pipelit.services.auth import AuthService
from pipelit.services.authenticator import Authenticator
from pipelit.services.credentials import CredentialsService
from pipelit.services.gateway import GatewaySync
from pipelit.services.passwords import Passwords
from pipelit.services.permits import Permits
from pipelit.services.sessions import Sessions
from pipelit.store import Store
from pipelit.store.secrets import Secrets, new_key
from tests.kit.accounts import FakeProviders
from tests.kit.gateway import no_gateway
from tests.kit.hand_clock import HandClock
from tests.kit.store import migrated, store, store_url

__all__ = ["HandClock", "migrated", "store", "store_url"]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def events() -> KeyEvents:
    return KeyEvents()


@pytest.fixture
def authenticator(store: Store, clock: HandClock, events: KeyEvents) -> Authenticator:
    return Authenticator(store, clock, events)


@pytest.fixture
def auth(store: Store, clock: HandClock, events: KeyEvents, tmp_path: Path) -> AuthService:
    return AuthService(
        store,
        clock,
        Ids.seeded(1),
        sessions=Sessions(store, clock, Ids.seeded(3), events),
        permits=Permits(),
        workspaces_dir=tmp_path / "workspaces",
        passwords=Passwords(cost=4),
    )


@pytest.fixture
def secrets() -> Secrets:
    return Secrets(new_key())


@pytest.fixture
def providers() -> FakeProviders:
    return FakeProviders()


@pytest.fixture
def credentials(
    store: Store, clock: HandClock, secrets: Secrets, providers: FakeProviders
) -> CredentialsService:
    return CredentialsService(
        store,
        clock,
        secrets,
        test_provider=providers.test,
        list_models=providers.list,
        gateway=GatewaySync(no_gateway()),
    )
