"""Callers of a server that offers one section. Ada is an admin, Bob is not."""

from typing import Any

import httpx2
import msgspec


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A server of `tests.kit.web_server.serving`, whose keys it knows."""

    client: httpx2.AsyncClient

    async def call(
        self, method: str, path: str, body: object = None, *, key: str = "bob-key"
    ) -> httpx2.Response:
        """Send one request below `/api/v1`."""
        headers = {"Authorization": f"Bearer {key}"}
        content = {} if body is None else {"json": body}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **content)

    async def get(self, path: str, *, key: str = "bob-key") -> Any:
        """Return the body of a GET that must succeed."""
        response = await self.call("GET", path, key=key)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, *request: Any, **more: Any) -> tuple[int, Any]:
        """Return status and `detail` of a request that must be refused."""
        response = await self.call(*request, **more)
        assert response.status_code >= 400, response.text
        assert set(response.json()) == {"detail"}
        return response.status_code, response.json()["detail"]
