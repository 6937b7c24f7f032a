"""The demo's server: the real one, as a child process that can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import trio

from pipelit.cli.client import Client
from pipelit.settings import ALIASED

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerProcess:
    """One child process. Owned by the task that plays the demo."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port
        self._process: trio.Process | None = None

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running.pid

    async def start(self, client: Client) -> None:
        """Start the server and wait until it takes work.

        Raises:
            click.ClickException: it ended instead, or is not ready in 60 s.
        """
        errors = self._directory / "server.err"
        with errors.open("wb") as stderr:
            self._process = await trio.lowlevel.open_process(
                self._arguments(),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=_clean_environment(),
                # Ctrl-C reaches this program alone, which then stops the server in good order.
                start_new_session=True,
            )
        with trio.move_on_after(START_SECONDS):
            while self._process.returncode is None:
                if await client.is_ready():
                    self._note_pid()
                    return
                await trio.sleep(0.1)
        said = errors.read_text(errors="replace").strip().splitlines()
        await self.stop()
        raise click.ClickException(said[-1] if said else "The server did not start.")

    async def wait(self) -> int:
        """Wait until the server ends and return its exit code; negative: killed by a signal."""
        return await self._running.wait()

    async def kill(self) -> None:
        """Kill the server as a power cut would."""
        self._running.send_signal(signal.SIGKILL)
        await self._running.wait()

    async def stop(self) -> None:
        """Ask the server to stop and wait for it; kill it after 20 s."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await self._process.wait()
            return
        await self.kill()

    def _note_pid(self) -> None:
        (self._directory / "server.pid").write_text(f"{self.pid}\n")

    @property
    def _running(self) -> trio.Process:
        if self._process is None:
            raise RuntimeError("the demo's server was not started")
        return self._process

    def _arguments(self) -> list[str]:
        return [
            sys.executable, "-m", "pipelit", "serve",
            "--data-dir", str(self._directory),
            "--host", "127.0.0.1",
            "--port", str(self._port),
            "--platform-base-url", self.url,
            "--log-file", str(self._directory / "server.log"),
        ]  # fmt: skip


def find_port(wanted: int) -> int:
    """Return *wanted*, or for 0 a port of the loopback interface that nobody uses now.

    Raises:
        click.ClickException: somebody listens there already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            raise click.ClickException(
                f"Port {wanted} is in use; stop who listens there, or choose another with --port."
            ) from None
        return int(probe.getsockname()[1])


def _clean_environment() -> dict[str, str]:
    """Return the environment without settings meant for another server."""
    foreign = {name.upper() for name in ALIASED}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIPELIT_") and name not in foreign
    }
