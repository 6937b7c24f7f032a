"""The people of the contract tests, calling one account server. Import the fixtures by name."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from pipelit.store import Store
from tests.kit.accounts import AccountServer, Caller, FakeProviders, account_server


@pytest.fixture
def providers() -> FakeProviders:
    """What the server takes for the outside."""
    return FakeProviders()


@pytest.fixture
async def server(
    store: Store, tmp_path: Path, providers: FakeProviders
) -> AsyncIterator[AccountServer]:
    """A server without users."""
    async with account_server(store, tmp_path, providers) as running:
        yield running


@pytest.fixture
async def ada(server: AccountServer) -> Caller:
    """The admin, user 1."""
    return await server.setup()


@pytest.fixture
async def olga(ada: Caller, server: AccountServer) -> Caller:
    """A normal user, user 2."""
    return await server.add_user("olga")


@pytest.fixture
async def otto(olga: Caller, server: AccountServer) -> Caller:
    """Another normal user, user 3."""
    return await server.add_user("otto")


def refusal(answer: httpx2.Response) -> tuple[int, object]:
    """Return status and `detail` of an answer that is an error and nothing else."""
    assert set(answer.json()) == {"detail"}
    return answer.status_code, answer.json()["detail"]


def problems(answer: httpx2.Response) -> list[str]:
    """Return the problems of a 422."""
    assert answer.status_code == 422
    found: list[str] = answer.json()["detail"]["validation_errors"]
    return found
