"""Every component type of the reference does what its row says, in a running server.

The tables of node-types.md are read, so a type that is added there needs a case here.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from tests.contract import node_cases
from tests.kit.bench_nodes import NodeBench
from tests.kit.http_server import Answer, Seen, serve
from tests.kit.model_server import ModelServer
from tests.kit.node_tables import descriptions, functions, identities, shapes, signatures
from tests.kit.node_world import CASES, GATEWAY_TOKEN, World
from tests.kit.sandbox import bubblewrap
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import People, Site, run_site

__all__ = ["bubblewrap", "node_cases"]

pytestmark = pytest.mark.slow

TYPES = tuple(identities())
SILENT = frozenset({"skill"})
"""Offers its function only with files."""
NEED_SANDBOX = frozenset({"code", "run_command", "code_execute"})
FOUND = {"title": "Trio docs", "url": "https://trio.example", "content": "Structured"}


@pytest.fixture(scope="module")
def web_port() -> int:
    """Where the web server of the test is: the server may reach it."""
    return free_port()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, web_port: int) -> Iterator[Site]:
    """A server that knows where it is reached, and a gateway."""
    port = free_port()
    environ = {
        "PLATFORM_BASE_URL": f"http://127.0.0.1:{port}",
        "PIPELIT_EGRESS_ALLOW": f"127.0.0.1:{web_port}",
        "GATEWAY_URL": f"http://127.0.0.1:{web_port}",
        "GATEWAY_INBOUND_TOKEN": GATEWAY_TOKEN,
        "GATEWAY_SEND_TOKEN": "send-token",
    }
    server = ServerProcess(tmp_path_factory.mktemp("types"), port, environ)
    with run_site(server) as running:
        yield running


@pytest.fixture
async def world(
    site: Site, people: People, provider: ModelServer, slug: str, web_port: int
) -> AsyncIterator[World]:
    async with serve(_answer, port=web_port) as web:
        yield World(
            site=site,
            api=people.olga,
            other=people.otto,
            provider=provider,
            nodes=NodeBench(people.olga, provider, slug),
            web=web.url,
        )


def _answer(seen: Seen) -> Answer:
    if seen.target.startswith("/searx/"):
        found = [] if "nothing" in seen.target else [FOUND]
        return Answer(body=json.dumps({"results": found}).encode())
    body = json.dumps({"path": seen.target}, separators=(",", ":"))
    return Answer(headers={"content-type": "application/json"}, body=body.encode())


@pytest.fixture
async def registry(people: People) -> Any:
    """What the server tells of its types."""
    return await people.olga.get("/workflows/node-types/")


def test_every_type_of_the_reference_has_a_case() -> None:
    """And no case is of a type that is not there."""
    assert len(TYPES) == 48
    assert set(CASES) == set(TYPES) == set(shapes()) == set(descriptions())


async def test_every_type_is_shown_as_the_tables_say(registry: Any) -> None:
    """Identity, ports, slots and description."""
    assert set(registry) == set(TYPES)
    for name, row in identities().items():
        told, shape = registry[name], shapes()[name]
        assert (told["label"], told["category"], told["icon"], told["color"]) == row[:4], name
        assert told["description"] == descriptions()[name], name
        assert _ports(told["inputs"]) == shape.inputs, name
        assert _ports(told["outputs"]) == shape.outputs, name
        assert {slot["name"]: slot["required"] for slot in told["sub_inputs"]} == shape.slots, name


async def test_every_function_is_offered_as_the_index_says(world: World) -> None:
    """By one agent with one node of every type that offers functions."""
    offering = {name: found for name, found in functions().items() if name not in SILENT}
    tools: dict[str, tuple[str, dict[str, Any]]] = {f"x_{name}": (name, {}) for name in offering}
    async with world.nodes.agent(tools) as talk:
        offered = talk.offered

    texts = {name: text for found in offering.values() for name, text in found.items()}
    assert {name: told["description"] for name, told in offered.items()} == texts
    for name, told in offered.items():
        assert _written(told["parameters"]) == signatures()[name], name


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, component_type: str) -> None:
    """Skip types that need a sandbox where there is none."""
    if component_type in NEED_SANDBOX:
        request.getfixturevalue("bubblewrap")


@pytest.mark.parametrize("component_type", TYPES)
async def test_a_type_does_what_its_section_says(
    sandbox: None, world: World, component_type: str
) -> None:
    """One success, one failure, the words of both."""
    with trio.fail_after(60):
        await CASES[component_type](world)


def _written(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a schema without their descriptions; they are all there is."""
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    found = schema["properties"]
    assert all(told.get("description") for told in found.values())
    assert schema["required"] == [name for name, told in found.items() if "default" not in told]
    return {
        name: {k: v for k, v in told.items() if k in ("type", "default")}
        for name, told in found.items()
    }


def _ports(told: list[dict[str, Any]]) -> dict[str, str]:
    return {port["name"]: port["data_type"] + "*" * port["required"] for port in told}
