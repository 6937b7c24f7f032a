"""Gives the provider for a credential, and keeps as few of them as it may.

Contract: engine.md §21.1, §21.2.
"""

from collections import OrderedDict
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import msgspec

from pipelit.llm.anthropic_ import AnthropicDialect
from pipelit.llm.client import Dialect, SdkProvider, StreamRefusals
from pipelit.llm.openai_ import OpenAIDialect
from pipelit.llm.types import Provider, ProviderError, ProviderSpec

MAX_CLIENTS = 256


class ProviderCache:
    """One client per equal spec, the least recently used dropped beyond `max_clients`.

    All clients share *http*, which owns the connections, so a dropped client has nothing to
    close and calls under way end undisturbed. Closing *http* is its owner's duty.
    """

    def __init__(self, http: httpx2.AsyncClient, *, max_clients: int = MAX_CLIENTS) -> None:
        # One user's provider must not hand a cookie to another user's credential.
        http.cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._http = http
        self._max_clients = max_clients
        self._clients: OrderedDict[bytes, Provider] = OrderedDict()
        self._refusals = StreamRefusals()

    def get(self, spec: ProviderSpec) -> Provider:
        """Return the client for *spec*.

        Raises:
            ProviderError: `ConfigError`, the provider type is unknown.
        """
        key = msgspec.json.encode(spec, order="sorted")
        client = self._clients.get(key)
        if client is None:
            client = SdkProvider(spec, _dialect(spec), self._http, self._refusals)
            self._clients[key] = client
            if len(self._clients) > self._max_clients:
                self._clients.popitem(last=False)
        self._clients.move_to_end(key)
        return client


def _dialect(spec: ProviderSpec) -> Dialect:
    dialects: Mapping[str, type[Dialect]] = {
        "openai": OpenAIDialect,
        "openai_compatible": OpenAIDialect,
        "glm": OpenAIDialect,
        "anthropic": AnthropicDialect,
    }
    dialect = dialects.get(spec.provider_type)
    if dialect is None:
        raise ProviderError(
            f"Unsupported provider type: {spec.provider_type}", code="ConfigError", retryable=False
        )
    return dialect()
