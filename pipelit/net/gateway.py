"""Calls to the operator's message gateway. Contract: credentials.md "Gateway calls", engine.md §19.

A failure is one `GatewayError` whose text is the contract's; nothing is repeated here.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from pipelit.errors import PipelitError
from pipelit.net.egress import EgressBlocked
from pipelit.net.http import HttpClient, HttpError, HttpRequest

UNAVAILABLE = "Gateway unavailable."
TIMEOUT = 30.0
MAX_MESSAGE = 1000

log = structlog.get_logger(__name__)


class GatewayError(PipelitError):
    """The gateway refused, or did not answer. `status`: what it answered, None if nothing."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Gateway:
    """Speaks to the gateway at *url*; an empty *url* means that there is none."""

    def __init__(self, http: HttpClient, *, url: str, admin_token: str, send_token: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._admin_token = admin_token
        self._send_token = send_token

    @property
    def is_configured(self) -> bool:
        """Whether there is a gateway to speak to."""
        return bool(self._url)

    async def send(self, credential_id: str, chat_id: str, text: str) -> None:
        """Send a message to a chat.

        Raises:
            GatewayError: it was not taken.
        """
        body = {"credential_id": credential_id, "chat_id": chat_id, "text": text, "file_ids": []}
        await self._call("POST", "/api/v1/send", body, token=self._send_token)

    async def register(self, credential_id: str, fields: Mapping[str, Any]) -> None:
        """Make a credential known, inactive. `fields`: `adapter`, `token`, perhaps `config`.

        Raises:
            GatewayError: it was not taken.
        """
        await self._admin("POST", "", {"id": credential_id, "active": False, **fields})

    async def change(self, credential_id: str, fields: Mapping[str, Any]) -> None:
        """Change some fields of a credential.

        Raises:
            GatewayError: they were not taken.
        """
        await self._admin("PUT", _path(credential_id), dict(fields))

    async def forget(self, credential_id: str) -> None:
        """Remove a credential; one that is not there is removed already.

        Raises:
            GatewayError: it was not removed.
        """
        try:
            await self._admin("DELETE", _path(credential_id))
        except GatewayError as error:
            if error.status != 404:
                raise

    async def set_active(self, credential_id: str, *, active: bool) -> dict[str, Any]:
        """Activate or deactivate a credential and return the gateway's answer.

        Raises:
            GatewayError: it refused.
        """
        word = "activate" if active else "deactivate"
        answer = await self._admin("PATCH", f"{_path(credential_id)}/{word}")
        return answer if isinstance(answer, dict) else {}

    async def _admin(self, method: str, path: str, body: object = None) -> Any:
        return await self._call(method, f"/admin/credentials{path}", body, token=self._admin_token)

    async def _call(self, method: str, path: str, body: object, *, token: str) -> Any:
        if not self._url:
            raise GatewayError(UNAVAILABLE)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = HttpRequest(
            method=method,
            url=self._url + path,
            headers=headers,
            body=b"" if body is None else msgspec.json.encode(body),
            timeout=TIMEOUT,
        )
        try:
            response = await self._http.request(request)
        except (HttpError, EgressBlocked) as error:
            log.warning("gateway unavailable", method=method, path=path, error=str(error))
            raise GatewayError(UNAVAILABLE) from error
        answer = _decode(response.body)
        if 200 <= response.status < 300:
            return answer
        said = answer.get("error") if isinstance(answer, dict) else None
        message = said[:MAX_MESSAGE] if isinstance(said, str) else f"HTTP {response.status}"
        text = f"Gateway API error {response.status}: {message}"
        raise GatewayError(text, status=response.status)


def _path(credential_id: str) -> str:
    return f"/{quote(credential_id, safe='')}"


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
