"""The way into a real server: HTTP requests and WebSockets over the kernel's sockets.

Has the interface of the simulation's door, so that the same clients go through either.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
)

from ops.soak.door import Answer, ConnectionLost, SocketClosed

START_SECONDS = 60.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 20.0


class RemoteDoor:
    """Leads to a server at a URL, whether it is up or not."""

    def __init__(self, url: str, http: httpx2.AsyncClient, nursery: trio.Nursery) -> None:
        """*nursery*: outlives every socket opened here."""
        self._url = url
        self._http = http
        self._nursery = nursery

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer.

        Raises:
            ConnectionLost: there was none.
        """
        sent = {"content-type": "application/json", **(headers or {})}
        if key:
            sent["authorization"] = f"Bearer {key}"
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = await self._http.request(
                method, f"{self._url}{path}", content=content, headers=sent
            )
        except httpx2.TransportError:
            raise ConnectionLost from None
        return Answer(answer.status_code, answer.content)

    async def socket(self, key: str) -> "RemoteSocket":
        """Open a WebSocket.

        Raises:
            ConnectionLost: nobody listens.
        """
        url = f"{self._url.replace('http', 'ws', 1)}/ws/?token={key}"
        try:
            with trio.fail_after(ANSWER_SECONDS):
                connection = await connect_websocket_url(self._nursery, url)
        except (OSError, HandshakeError, trio.TooSlowError):
            raise ConnectionLost from None
        return RemoteSocket(connection, self._nursery)


class RemoteSocket:
    """One WebSocket."""

    def __init__(self, connection: WebSocketConnection, nursery: trio.Nursery) -> None:
        self._connection = connection
        self._nursery = nursery

    async def say(self, frame: object) -> None:
        """Send a frame.

        Raises:
            SocketClosed: the server is gone.
        """
        try:
            await self._connection.send_message(msgspec.json.encode(frame).decode())
        except ConnectionClosed:
            raise SocketClosed(1006) from None

    async def hear(self) -> Any:
        """Return the next frame.

        Raises:
            SocketClosed: none comes any more.
        """
        try:
            return msgspec.json.decode(await self._connection.get_message())
        except ConnectionClosed as closed:
            raise SocketClosed(closed.reason.code if closed.reason else 1006) from None

    def hang_up(self) -> None:
        """Leave; nobody waits until the server has noticed."""
        self._nursery.start_soon(self._leave)

    async def _leave(self) -> None:
        with trio.move_on_after(1):
            await self._connection.aclose()


class Program:
    """The server as an operator starts it, on one data directory and one port."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.log = folder / "server.log"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[trio.Process]:
        """Start it; it may not be ready yet. At the end of the block it is gone."""
        with self.log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                self._command("serve", "--port", str(self._port)),
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def wait_ready(self, process: trio.Process) -> None:
        """Wait until it takes requests.

        Raises:
            RuntimeError: it ended, or takes too long.
        """
        async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
            with trio.move_on_after(START_SECONDS):
                while process.poll() is None:
                    try:
                        if (await http.get(f"{self.url}/ready")).status_code == 200:
                            return
                    except httpx2.TransportError:
                        pass  # not there yet
                    await trio.sleep(0.05)
        raise RuntimeError(f"the server does not get ready; see {self.log}")

    async def stop(self, process: trio.Process) -> int | None:
        """Ask it to stop; return the exit code, None if it does not stop."""
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            return await process.wait()
        return None

    async def check(self) -> str:
        """Have `pipelit db check` look at the database; return what it complains about."""
        done = await trio.run_process(
            self._command("db", "check"),
            env=self._environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        return "" if done.returncode == 0 else (done.stdout + done.stderr).decode()

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipelit", *words, "--data-dir", str(self._folder / "data")]

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if "PIPELIT" not in name}
        return {**kept, **self._environ}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
