"""The demo's server: the real one, as a child process that can be killed and started again."""

import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

import click
import trio

from pipelit.cli.client import Client
from pipelit.cli.options import program_name
from pipelit.settings import ALIASED

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerProcess:
    """One child process. Owned by the task that plays the demo."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port
        self._process: trio.Process | None = None
        self._lifeline: int | None = None

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
        await self._spawn(errors)
        with trio.move_on_after(START_SECONDS):
            while self._running.poll() is None:
                if await client.is_ready():
                    self._note_pid()
                    return
                await trio.sleep(0.1)
        said = errors.read_text(errors="replace").strip().splitlines()
        await self.stop()
        raise click.ClickException(said[-1] if said else "The server did not start.")

    async def _spawn(self, errors: Path) -> None:
        """Start the process with a lifeline to this one as its standard input."""
        theirs, ours = os.pipe()
        try:
            with errors.open("wb") as stderr:
                self._process = await trio.lowlevel.open_process(
                    self._arguments(),
                    stdin=theirs,
                    stdout=stderr,
                    stderr=stderr,
                    env=_clean_environment(),
                    # Ctrl-C reaches this program alone, which then stops the server in good order.
                    start_new_session=True,
                )
            _send_sigterm_at_close(theirs, self._process.pid)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._cut_lifeline()
        self._lifeline = ours

    async def wait(self) -> int:
        """Wait until the server ends and return its exit code; negative: killed by a signal."""
        return await self._running.wait()

    async def kill(self) -> None:
        """Kill the server as a power cut would."""
        self._running.send_signal(signal.SIGKILL)
        await self._running.wait()

    async def stop(self) -> None:
        """Ask the server to stop and wait for it; kill it after 20 s."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with trio.move_on_after(STOP_SECONDS) as limit:
                await self._process.wait()
            if limit.cancelled_caught:
                await self.kill()
        self._cut_lifeline()
        pid_file(self._directory).unlink(missing_ok=True)

    def _note_pid(self) -> None:
        pid_file(self._directory).write_text(f"{self.pid}\n")

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

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


def pid_file(directory: Path) -> Path:
    """Return the file that holds the process id of the server in *directory* while it runs."""
    return directory / "server.pid"


def running_server(directory: Path) -> int | None:
    """Return the process id of a server that runs in *directory* now, None if there is none."""
    try:
        pid = int(pid_file(directory).read_text())
        # A file that a crash left behind may name a process that is another program today.
        is_ours = b"pipelit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if is_ours else None


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
            other = f"{program_name()} demo --serve --port {min(wanted + 1, 65535)}"
            raise click.ClickException(
                f"Port {wanted} is in use by another program, perhaps `pipelit serve`. Stop that "
                f"one, or choose another port:\n    {other} --data-dir .demo"
            ) from None
        return int(probe.getsockname()[1])


def _send_sigterm_at_close(read_end: int, pid: int) -> None:
    """Have the kernel send SIGTERM to *pid* when the last writer of a pipe is gone.

    So the server stops in good order even when this program is killed and can do nothing more.
    """
    fcntl.fcntl(read_end, fcntl.F_SETOWN, pid)
    fcntl.fcntl(read_end, fcntl.F_SETSIG, signal.SIGTERM)
    flags = fcntl.fcntl(read_end, fcntl.F_GETFL)
    fcntl.fcntl(read_end, fcntl.F_SETFL, flags | os.O_ASYNC)


def _clean_environment() -> dict[str, str]:
    """Return the environment without settings meant for another server."""
    foreign = {name.upper() for name in ALIASED}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIPELIT_") and name not in foreign
    }
