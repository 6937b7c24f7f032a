"""The fixtures of the abuse cases: one server for all of them, and who suffers if one succeeds."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kit.api import Api
from tests.kit.sandbox import bubblewrap
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import People, Site, build_echo, people, provider, run_site, slug
from tests.security.bystander import BYSTANDER
from tests.security.trap import Trap, open_trap

__all__ = ["bubblewrap", "people", "provider", "slug"]

GATEWAY_TOKEN = "token-of-the-gateway"


@pytest.fixture(scope="session")
def trap_port() -> int:
    """The port that workflows may reach on this machine, by the operator's permission."""
    return free_port()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, trap_port: int) -> Iterator[Site]:
    """The server that all attacks are against."""
    port = free_port()
    environ = {
        "PLATFORM_BASE_URL": f"http://127.0.0.1:{port}",
        "PIPELIT_EGRESS_ALLOW": f"127.0.0.1:{trap_port}",
        "GATEWAY_INBOUND_TOKEN": GATEWAY_TOKEN,
    }
    directory = tmp_path_factory.mktemp("attacked")
    with run_site(ServerProcess(directory, port, environ)) as running:
        yield running


@pytest.fixture
async def trap(trap_port: int) -> AsyncIterator[Trap]:
    """A server of the attacker's, which workflows may reach."""
    async with open_trap(trap_port) as running:
        yield running


@pytest.fixture
async def bystander(people: People) -> Api:
    """Otto, who has a workflow and wants it to run whatever others do."""
    if (await people.otto.call("GET", f"/workflows/{BYSTANDER}/")).status_code == 404:
        await build_echo(people.otto, BYSTANDER)
    return people.otto
