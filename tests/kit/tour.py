"""A visitor who calls endpoints by their row of the checklist, with a socket open all the time."""

from typing import Any

import httpx2

from tests.kit.api import Api
from tests.kit.checklist import API_PREFIX, Endpoint, endpoints, events
from tests.kit.ws_client import WsClient


class Tour:
    """Remembers which rows it has called and which event types it has heard.

    Every call checks the status of its row, and that the socket hears what the call tells, in
    order, with the REST object as `data`, and nothing else.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.rows = endpoints()
        self.called: set[str] = set()
        self.heard: set[str] = set()
        self.keys: dict[str, str] = {}
        self.socket: WsClient | None = None
        self._api = Api(http)
        self._http = http

    async def call(
        self,
        row: str,
        body: object = None,
        *,
        by: str = "ada",
        tells: str = "",
        query: str = "",
        **path: object,
    ) -> Any:
        """Call an endpoint and return the body of its answer.

        Args:
            row: as the checklist writes it.
            by: whose key is used; somebody without one has none.
            tells: the types of the events this call causes.
            path: the parameters of the path.
        """
        endpoint = self.rows[row]
        answer = await self._send(endpoint, endpoint.path.format(**path) + query, body, by)
        assert answer.status_code == endpoint.statuses[0], f"{row}: {answer.text}"
        self.called.add(row)
        is_json = answer.headers.get("content-type") == "application/json"
        value = answer.json() if is_json else answer.text
        await self._hear(row, tells.split(), value)
        return value

    async def _send(self, endpoint: Endpoint, path: str, body: object, by: str) -> httpx2.Response:
        self._api.key = self.keys.get(by, "")
        if path.startswith(API_PREFIX):
            return await self._api.call(endpoint.method, path.removeprefix(API_PREFIX), body)
        return await self._http.request(endpoint.method, path)

    async def _hear(self, row: str, types: list[str], value: Any) -> None:
        if self.socket is None:
            assert not types, row
            return
        frames = [await self.socket.hear() for _ in types]
        frames += await self.socket.hear_rest()
        told = [frame["type"] for frame in frames]
        assert told == types, f"{row} tells {told}"
        self.heard.update(types)
        if types and types[-1].endswith(("_created", "_updated")) and isinstance(value, dict):
            assert frames[-1]["data"] == value, f"{row} tells {frames[-1]['data']}"

    def left_out(self) -> set[str]:
        """Return the rows nobody has called."""
        return self.rows.keys() - self.called

    def unheard(self, *tables: str) -> set[str]:
        """Return the event types of these tables that nobody has heard."""
        return {name for table in tables for name in events()[table]} - self.heard
