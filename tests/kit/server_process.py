"""The product as an operator starts it: a child process with its own data directory."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import trio

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A running server. `url` stays the same over a restart."""

    def __init__(
        self, directory: Path, port: int, environ: Mapping[str, str] | None = None
    ) -> None:
        """`environ`: the only settings the server finds in its environment."""
        self._directory = directory
        self._port = port
        self._environ = dict(environ or {})
        self.url = f"http://127.0.0.1:{port}"
        self.data = directory / "data"
        self.log = directory / "server.log"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[trio.Process]:
        """Start the server, wait until it is ready, and end it at the end whatever happens."""
        with self.log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                self.command(), stdout=log, stderr=log, env=self.environment()
            )
        try:
            await self._wait_ready(process)
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def fail_to_start(self) -> tuple[int, str]:
        """Start a server that cannot run; return its exit code and what it said on stderr."""
        with trio.fail_after(START_SECONDS):
            ended = await trio.run_process(
                self.command(),
                env=self.environment(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return ended.returncode, ended.stderr.decode()

    async def stop(self, process: trio.Process) -> int:
        """Ask the server to stop and return its exit code."""
        process.send_signal(signal.SIGTERM)
        try:
            with trio.fail_after(STOP_SECONDS):
                return await process.wait()
        except trio.TooSlowError:
            raise AssertionError(f"the server does not stop\n{self.tail()}") from None

    def tail(self) -> str:
        """Return the end of what the server wrote."""
        return self.log.read_text(errors="replace")[-4000:]

    def command(self) -> list[str]:
        """Return what starts the server."""
        command = [sys.executable, "-m", "pipelit", "serve", "--port", str(self._port)]
        return [*command, "--data-dir", str(self.data)]

    def environment(self) -> dict[str, str]:
        """Return the server's environment."""
        kept = {name: value for name, value in os.environ.items() if "PIPELIT" not in name}
        return kept | self._environ

    async def _wait_ready(self, process: trio.Process) -> None:
        async with httpx2.AsyncClient(trust_env=False) as http:
            with trio.move_on_after(START_SECONDS):
                while process.poll() is None:
                    try:
                        if (await http.get(f"{self.url}/ready")).status_code == 200:
                            return
                    except httpx2.TransportError:
                        pass
                    await trio.sleep(0.05)  # another process: there is nothing to wait on
        raise AssertionError(f"the server does not start\n{self.tail()}")
