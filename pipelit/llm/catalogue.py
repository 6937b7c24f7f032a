"""Does a credential work, and which models does it offer?

Asked once by a person, not by an execution, so without the SDKs.
Contract: credentials.md, sections "test" and "models".
"""

from typing import Any, Protocol

import msgspec

from pipelit.llm.anthropic_ import ANTHROPIC_URL, API_VERSION
from pipelit.llm.client import custom_headers
from pipelit.llm.models import is_anthropic_service
from pipelit.llm.openai_ import base_url
from pipelit.llm.types import ProviderSpec
from pipelit.net.http import EgressBlocked, HttpError, HttpRequest, HttpResponse

DEADLINE_SECONDS = 15.0

AUTHENTICATION_FAILED = "Authentication failed - invalid API key"
NO_ANSWER = "Provider did not answer in time"
NO_CONNECTION = "Could not connect to the provider"
NOT_ALLOWED = "Provider address is not allowed"

ANTHROPIC_MODELS = (
    "claude-3-5-sonnet-20241022",
    "claude-haiku-4-5-20251001",
    "claude-opus-4-0-20250514",
    "claude-opus-4-6",
    "claude-sonnet-4-20250514",
    "claude-sonnet-4-6",
)
MINIMAX_MODELS = (
    "MiniMax-M2",
    "MiniMax-M2.1",
    "MiniMax-M2.1-highspeed",
    "MiniMax-M2.5",
    "MiniMax-M2.5-highspeed",
)

_MAX_LIST_BYTES = 4 * 1024 * 1024
_PROBE_MODEL = "claude-haiku-4-5-20251001"


class Http(Protocol):
    """What is needed of an HTTP client; it checks addresses for the caller `provider`."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Send *request*; see `pipelit.net.http.HttpClient`."""
        ...


async def test_provider(spec: ProviderSpec, http: Http) -> str:
    """Try a credential at its provider.

    Returns:
        "" if it works, else the contract's text of what is wrong. Nothing of the provider's own
        answer is in it.
    """
    at_home = is_anthropic_service(spec.provider_type, spec.base_url)
    try:
        response = await http.request(_probe(spec) if at_home else _list_request(spec))
    except EgressBlocked:
        return NOT_ALLOWED
    except HttpError as error:
        return NO_ANSWER if "Timeout" in error.code else NO_CONNECTION
    except ValueError:
        return NO_CONNECTION  # the key or a header has characters that no header may have
    if 200 <= response.status < 300:
        return ""
    if response.status in (401, 403):
        return AUTHENTICATION_FAILED
    return f"Provider returned HTTP {response.status}"


async def list_models(spec: ProviderSpec, http: Http) -> list[str]:
    """Return the ids of the models a credential offers, sorted; none if they cannot be had."""
    if is_anthropic_service(spec.provider_type, spec.base_url):
        return list(ANTHROPIC_MODELS)
    try:
        response = await http.request(_list_request(spec))
        if 200 <= response.status < 300 and not response.truncated:
            return _model_ids(response.body)
    except (EgressBlocked, HttpError, ValueError):
        pass  # every failure has the same answer
    return list(MINIMAX_MODELS) if "minimax" in spec.base_url.lower() else []


def _list_request(spec: ProviderSpec) -> HttpRequest:
    headers = custom_headers(spec)
    if spec.api_key:
        headers["Authorization"] = f"Bearer {spec.api_key}"
    return HttpRequest(
        method="GET",
        url=base_url(spec).rstrip("/") + "/models",
        headers=headers,
        timeout=DEADLINE_SECONDS,
        max_bytes=_MAX_LIST_BYTES,
    )


def _probe(spec: ProviderSpec) -> HttpRequest:
    body = {
        "model": _PROBE_MODEL,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    headers = {
        **custom_headers(spec),
        "x-api-key": spec.api_key,
        "anthropic-version": API_VERSION,
        "content-type": "application/json",
    }
    return HttpRequest(
        method="POST",
        url=(spec.base_url or ANTHROPIC_URL).rstrip("/") + "/v1/messages",
        headers=headers,
        body=msgspec.json.encode(body),
        timeout=DEADLINE_SECONDS,
    )


def _model_ids(body: bytes) -> list[str]:
    """Read a model list. Raises `ValueError` (msgspec's errors are) if it is none."""
    answer: Any = msgspec.json.decode(body)
    entries = answer.get("data") if isinstance(answer, dict) else answer
    if isinstance(entries, list):
        ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
        return sorted({model for model in ids if isinstance(model, str) and model})
    raise ValueError("no list of models")
