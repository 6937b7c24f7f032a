"""Which client a credential gets."""

import httpx2
import pytest
import trio

from pipelit.llm.provider import ProviderCache
from pipelit.llm.types import ProviderError
from tests.kit.model_server import ModelServer
from tests.llm.asking import Asker, request, spec


async def test_equal_specs_share_a_client_and_others_do_not(http: httpx2.AsyncClient) -> None:
    """Whatever differs, a key or a header, makes another client."""
    cache = ProviderCache(http)

    first = cache.get(spec("http://a", custom_headers={"a": "1", "b": "2"}))

    assert cache.get(spec("http://a", custom_headers={"b": "2", "a": "1"})) is first
    assert cache.get(spec("http://a", custom_headers={"a": "1", "b": "3"})) is not first
    assert cache.get(spec("http://a")) is not first


async def test_the_least_recently_used_client_is_dropped(http: httpx2.AsyncClient) -> None:
    """The number of clients is bounded; use keeps one alive."""
    cache = ProviderCache(http, max_clients=2)
    one, two = cache.get(spec("http://1")), cache.get(spec("http://2"))
    cache.get(spec("http://1"))

    cache.get(spec("http://3"))

    assert cache.get(spec("http://1")) is one
    assert cache.get(spec("http://2")) is not two


async def test_an_unknown_provider_type_is_a_configuration_error(http: httpx2.AsyncClient) -> None:
    """The text is the contract's and another attempt would not help."""
    with pytest.raises(ProviderError, match=r"^Unsupported provider type: acme$") as caught:
        ProviderCache(http).get(spec("http://a", provider_type="acme"))

    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


async def test_no_cookie_of_one_provider_reaches_another_call(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Clients share connections, not memories."""
    asker = Asker(http, spec(server.url))
    body = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asker.ask, request())
            call = await server.next_call()
            await call.respond(200, body, set_cookie="session=1")

    assert "cookie" not in call.headers
