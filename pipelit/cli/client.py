"""The API over HTTP as the commands use it, and the errors that become exit codes."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import click
import httpx2
import msgspec

from pipelit.cli.hints import refusal_hint, start_hint

TIMEOUT = httpx2.Timeout(60, connect=5)
"""Seconds. A cancel answers only after everything it stops has ended, hence the long one."""


class ServerRefusedError(click.ClickException):
    """The server said no: exit code 1, its message on stderr."""

    exit_code = 1

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(click.ClickException):
    """The server cannot be reached: exit code 3."""

    exit_code = 3

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Cannot reach {url} ({reason}).\n{start_hint(os.environ)}")


class NotCancelledError(click.ClickException):
    """The server could not be told to cancel an execution: exit code 3."""

    exit_code = 3

    def __init__(self, error: UnreachableError, execution_id: str) -> None:
        super().__init__(
            f"{error.message}\n"
            f"The execution was not cancelled: it goes on when the server is back. Then cancel it "
            f"with\n    pipelit executions cancel {execution_id}"
        )


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which server a command talks to, and as whom. `key` is "" before anybody logged in."""

    url: str
    key: str = ""

    def __repr__(self) -> str:
        return f"Target(url={self.url!r})"

    @property
    def headers(self) -> dict[str, str]:
        """The header that says who asks."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


class Client:
    """One server's REST API. Used as a context manager, by one command."""

    def __init__(self, http: httpx2.AsyncClient, target: Target) -> None:
        self._http = http
        self.target = target

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target) -> AsyncIterator[Self]:
        """Open connections to *target* for the length of the block."""
        # Proxy variables are ignored, as the WebSocket does: both must reach the same server.
        async with httpx2.AsyncClient(
            base_url=target.url, headers=target.headers, timeout=TIMEOUT, trust_env=False
        ) as http:
            yield cls(http, target)

    async def get(self, path: str, **params: str | int | None) -> Any:
        """Return the JSON of a GET below `/api/v1`. Parameters that are None are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return await self._send("GET", path, params=given)

    async def post(self, path: str, body: object = None) -> Any:
        """Return the JSON of a POST below `/api/v1`; None when the answer has no body."""
        return await self._send("POST", path, json={} if body is None else body)

    async def patch(self, path: str, body: object) -> Any:
        """Return the JSON of a PATCH below `/api/v1`."""
        return await self._send("PATCH", path, json=body)

    async def delete(self, path: str) -> None:
        """Delete what stands below `/api/v1`."""
        await self._send("DELETE", path)

    async def is_ready(self) -> bool:
        """Tell whether the server answers and takes work."""
        try:
            response = await self._http.get("/ready", timeout=2)
        except httpx2.HTTPError:
            return False
        return response.status_code < 500

    async def _send(self, method: str, path: str, **content: Any) -> Any:
        try:
            response = await self._http.request(method, f"/api/v1{path}", **content)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(self.target.url, reason) from error
        if response.is_success:
            return _decode(response)
        raise _refusal(response)


def _decode(response: httpx2.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise _stranger(response) from None


def _stranger(response: httpx2.Response) -> ServerRefusedError:
    """Say that something else than Pipelit answers there."""
    message = f"{response.url.host}:{response.url.port or ''}".rstrip(":")
    return ServerRefusedError(
        f"{message} does not answer like a Pipelit server (HTTP {response.status_code}); "
        "check --url and PIPELIT_URL.",
        status=response.status_code,
    )


def _refusal(response: httpx2.Response) -> ServerRefusedError:
    """Word a refusal: what the server said, and what to do about it where that is known."""
    try:
        detail = response.json()["detail"]
    except (ValueError, LookupError, TypeError):
        if response.status_code < 500:
            return _stranger(response)
        detail = f"HTTP {response.status_code}"
    if isinstance(detail, dict):
        detail = "\n".join(map(str, detail.get("validation_errors", [detail])))
    hint = refusal_hint(
        response.status_code,
        str(detail),
        response.url.path,
        response.headers.get("Retry-After"),
    )
    text = f"{detail}\n{hint}" if hint else str(detail)
    return ServerRefusedError(text, status=response.status_code)
