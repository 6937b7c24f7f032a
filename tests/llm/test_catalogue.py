"""Testing a credential and listing its models, over a real socket."""

from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import trio

from pipelit.llm import catalogue
from pipelit.llm.catalogue import ANTHROPIC_MODELS, MINIMAX_MODELS, list_models
from pipelit.llm.catalogue import test_provider as try_provider
from pipelit.llm.locality import is_local
from pipelit.net.egress import EgressPolicy, IPAddress
from pipelit.net.http import HttpClient
from pipelit.net.resolver import ResolveError
from tests.kit.model_server import ModelServer
from tests.llm.asking import Asker, request, spec


class Names:
    """A resolver that knows a few names; everything else is unknown."""

    known = {
        "api.anthropic.com": "127.0.0.1",
        "minimax.example": "127.0.0.1",
        "127.0.0.1": "127.0.0.1",
        "metadata.example": "169.254.169.254",
        "private.example": "10.0.0.8",
        "public.example": "93.184.216.34",
    }

    async def resolve(self, host: str) -> tuple[IPAddress, ...]:
        await trio.lowlevel.checkpoint()
        if host not in self.known:
            raise ResolveError(f"unknown: {host}")
        return (ip_address(self.known[host]),)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(EgressPolicy(), "provider", resolver=Names())
    yield client
    await client.aclose()


async def test_a_key_that_works(client: HttpClient, server: ModelServer) -> None:
    """The list of models is asked for with the key and the credential's own headers."""
    own = {"X-Team": "ops", "Authorization": "no"}

    assert await try_provider(spec(server.url + "/", custom_headers=own), client) == ""

    asked = server.requests[0]
    assert (asked.method, asked.path) == ("GET", "/v1/models")
    assert asked.headers["authorization"] == "Bearer sk-demo-0123456789abcdef"
    assert asked.headers["x-team"] == "ops"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (204, ""),
        (301, "Provider returned HTTP 301"),
        (401, "Authentication failed - invalid API key"),
        (403, "Authentication failed - invalid API key"),
        (500, "Provider returned HTTP 500"),
    ],
)
async def test_the_status_decides(
    client: HttpClient, server: ModelServer, status: int, error: str
) -> None:
    """Redirects are not followed, and the provider's words are not repeated."""
    server.models_status = status

    assert await try_provider(spec(server.url), client) == error
    assert len(server.requests) == 1


async def test_no_connection(client: HttpClient) -> None:
    """Unknown hosts, bad URLs and keys that no header can carry are one answer."""
    for broken in (
        spec("http://unknown.example/v1"),
        spec("http://user:pass@127.0.0.1/v1"),
        spec("http://127.0.0.1:1/v1"),
        spec("http://127.0.0.1:9/v1", api_key="ключ"),
    ):
        assert await try_provider(broken, client) == "Could not connect to the provider"


async def test_an_address_that_is_not_allowed(client: HttpClient) -> None:
    """Cloud metadata is nobody's provider."""
    error = await try_provider(spec("http://metadata.example/v1"), client)

    assert error == "Provider address is not allowed"


async def test_a_provider_that_does_not_answer(
    client: HttpClient, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline ends the wait; for models the answer is an empty list."""
    monkeypatch.setattr(catalogue, "DEADLINE_SECONDS", 0.05)
    server.models_status = 0

    assert await try_provider(spec(server.url), client) == "Provider did not answer in time"
    assert await list_models(spec(server.url), client) == []


async def test_anthropic_is_tested_by_a_minimal_message(
    client: HttpClient, server: ModelServer
) -> None:
    """One output token is asked for, with the key in `x-api-key`."""
    address = server.address.replace("127.0.0.1", "api.anthropic.com")
    errors = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            credential = spec(address, provider_type="anthropic", api_key="k")
            errors.append(await try_provider(credential, client))

        nursery.start_soon(run)
        call = await server.next_call()
        await call.respond(200, {})

    assert errors == [""]
    assert call.path == "/v1/messages"
    assert call.headers["x-api-key"] == "k"
    assert call.body["max_tokens"] == 1


async def test_an_imitation_of_anthropic_is_asked_for_its_models(
    client: HttpClient, server: ModelServer
) -> None:
    """Only Anthropic itself gets the message."""
    assert await try_provider(spec(server.url, provider_type="anthropic"), client) == ""
    assert server.requests[0].path == "/v1/models"


@pytest.mark.parametrize(
    ("answer", "ids"),
    [
        ({"data": [{"id": "b"}, {"id": "a"}, {"id": 1}, {}, "c"]}, ["a", "b"]),
        ([{"id": "a"}], ["a"]),
        ({"models": []}, []),
        ("text", []),
    ],
)
async def test_models_are_read_leniently(
    client: HttpClient, server: ModelServer, answer: object, ids: list[str]
) -> None:
    """`data` or a top-level array; entries without a text id are dropped; sorted."""
    server.models = answer

    assert await list_models(spec(server.url), client) == ids


async def test_lists_that_need_no_call_or_survive_one(
    client: HttpClient, server: ModelServer
) -> None:
    """Anthropic's list is curated; MiniMax, which has none, gets one when the call fails."""
    anthropic = spec("", provider_type="anthropic")
    assert await list_models(anthropic, client) == list(ANTHROPIC_MODELS)

    server.models_status = 404
    minimax = spec(server.url.replace("127.0.0.1", "minimax.example"))
    assert await list_models(minimax, client) == list(MINIMAX_MODELS)
    assert await list_models(spec(server.url), client) == []


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("", False),
        ("http://127.0.0.1:9100/v1", True),
        ("https://private.example/v1", True),
        ("https://public.example/v1", False),
        ("https://metadata.example/v1", False),
        ("https://unknown.example/v1", False),
    ],
)
async def test_own_machines_are_local(url: str, local: bool) -> None:
    """Only loopback and private addresses make a provider free of charge."""
    assert await is_local(url, Names()) is local


def test_lists_are_sorted() -> None:
    """The curated lists are in the order the contract promises."""
    assert list(ANTHROPIC_MODELS) == sorted(ANTHROPIC_MODELS)
    assert list(MINIMAX_MODELS) == sorted(MINIMAX_MODELS)


async def test_the_client_of_the_net_layer_serves_the_providers(
    client: HttpClient, server: ModelServer
) -> None:
    """Model calls pass the same address check; a refusal is final and has its own code."""
    async with client.raw_client() as http:
        asker = Asker(http, spec(server.url))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asker.ask, request())
            await (await server.next_call()).say("Hello.")
        blocked = Asker(http, spec("http://metadata.example/v1"))
        await blocked.try_ask(request())

    assert asker.response is not None
    assert blocked.error is not None
    assert blocked.error.code == "EgressBlockedError"
    assert not blocked.error.retryable
    assert "169.254.169.254" in str(blocked.error)
