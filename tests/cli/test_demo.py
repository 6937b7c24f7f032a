"""The demo, and the first minute of the README, against the real server."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from pipelit.cli.demo.server import find_port, running_server
from pipelit.cli.remember import load_login

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def environment(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELIT")}
    return {**kept, "PIPELIT_DIR": str(directory), "TMPDIR": str(directory)}


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def server_pid(data: Path) -> int:
    return int((data / "server.pid").read_text())


async def pipelit(directory: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(120):
        return await trio.run_process(
            [sys.executable, "-m", "pipelit", *args],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(directory),
        )


class Started:
    """A command that runs beside the test, and what it has said so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""

    async def wait_said(self, text: str) -> None:
        """Wait until the command has said *text*."""
        assert self.process.stdout is not None
        with trio.fail_after(90):
            while text not in self.said:
                part = await self.process.stdout.receive_some()
                assert part, f"ended without saying {text!r}: {self.said}"
                self.said += part.decode()

    async def wait_ended(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process.stdout is not None
        with trio.fail_after(90):
            async for part in self.process.stdout:
                self.said += part.decode()
            return await self.process.wait()


@asynccontextmanager
async def started(directory: Path, *args: str) -> AsyncIterator[Started]:
    """Start a command; it is ended with the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipelit", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(directory) | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Started(process)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(60):
                    await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


async def test_the_demo_shows_a_run_a_cancel_and_a_crash(tmp_path: Path) -> None:
    """Exit code 0 after three acts; nothing is left behind."""
    done = await pipelit(tmp_path, "demo")

    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    first, second, third = re.split(r"^\d\. .*$", text, flags=re.MULTILINE)[1:]
    assert re.search(r"agent \(Agent\) +success", first)
    assert re.search(r"calculator +success", first)
    assert "12*17 is 204" in first
    assert re.search(r"execution +cancelled", second)
    assert "Connected again." in third
    assert re.search(r"execution +completed", third)
    assert left_in(tmp_path) == []


async def test_an_interrupted_demo_stops_its_server(tmp_path: Path) -> None:
    """Ctrl-C leaves no process and no directory."""
    async with started(tmp_path, "demo") as demo:
        await demo.wait_said("1. A chat message")
        (directory,) = left_in(tmp_path)
        pid = server_pid(directory)
        demo.process.send_signal(signal.SIGINT)
        code = await demo.wait_ended()

    assert code == 130
    assert "Traceback" not in demo.said
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert left_in(tmp_path) == []


async def test_a_demo_stopped_while_its_server_starts_again_leaves_nothing(tmp_path: Path) -> None:
    """In the third act too: no process, no directory, no traceback."""
    async with started(tmp_path, "demo") as demo:
        await demo.wait_said("$ pipelit serve")
        demo.process.send_signal(signal.SIGHUP)
        demo.process.send_signal(signal.SIGHUP)  # a shell sends its own beside the kernel's
        code = await demo.wait_ended()

    assert code == 130
    assert "Traceback" not in demo.said
    assert left_in(tmp_path) == []


async def test_a_killed_demo_takes_its_server_along(tmp_path: Path) -> None:
    """The kernel tells the server that its lifeline is cut."""
    data = tmp_path / "demo"
    serve = ("demo", "--serve", "--port", str(find_port(0)), "--data-dir", str(data))
    async with started(data, *serve) as server:
        await server.wait_said("Ctrl-C stops the server.")
        pid = server_pid(data)
        server.process.kill()
        await server.wait_ended()
        with trio.fail_after(30):
            while is_alive(pid):  # noqa: ASYNC110
                await trio.sleep(0.05)  # a process of another parent: nothing to wait on

    assert running_server(data) is None


async def test_the_demo_leaves_foreign_directories_alone(tmp_path: Path) -> None:
    """It refuses what it did not make, and writes nothing there."""
    (tmp_path / "thesis.txt").touch()
    done = await pipelit(tmp_path, "demo", "--data-dir", str(tmp_path))

    assert done.returncode == 1
    assert b"choose a new one" in done.stderr
    assert [path.name for path in left_in(tmp_path)] == ["thesis.txt"]


async def test_the_first_minute_of_the_readme(tmp_path: Path) -> None:
    """Run, cancel, kill -9, start again: the watcher sees the run to its end."""
    readme = (ROOT / "README.md").read_text()
    for message in ("What is 12*17?", "Please hang.", "Very slowly, please: what is 3*4?"):
        assert f'chat demo "{message}"' in readme
    data = tmp_path / "demo"
    serve = ("demo", "--serve", "--port", str(find_port(0)), "--data-dir", str(data))
    async with started(data, *serve) as server:
        await server.wait_said("Ctrl-C stops the server.")
        twice = await pipelit(data, *serve)
        ran = await pipelit(data, "chat", "demo", "What is 12*17?")
        async with started(data, "chat", "demo", "Please hang.") as hanging:
            await hanging.wait_said("running")
            hanging.process.send_signal(signal.SIGINT)
            hanging_code = await hanging.wait_ended()
        async with started(data, "chat", "demo", "Very slowly, please: what is 3*4?") as slow:
            await slow.wait_said("calculator")
            os.kill(server_pid(data), signal.SIGKILL)
            assert await server.wait_ended() == 1
            await slow.wait_said("Connection lost")
            async with started(data, *serve) as again:
                await again.wait_said("Ctrl-C stops the server.")
                slow_code = await slow.wait_ended()
                listed = await pipelit(data, "executions", "list")
                again.process.send_signal(signal.SIGINT)
                stopped_code = await again.wait_ended()

    assert twice.returncode == 1
    assert b"already runs" in twice.stderr
    assert ran.returncode == 0, ran.stderr
    assert b"12*17 is 204" in ran.stdout
    assert hanging_code == 1
    assert "cancelled" in hanging.said
    assert slow_code == 0, slow.said
    assert "3*4 is 12" in slow.said
    states = [line.split()[2] for line in listed.stdout.decode().splitlines()[1:]]
    assert states == ["completed", "cancelled", "completed"]
    assert stopped_code == 0, again.said
    assert load_login(data / "login.json") is not None
    assert not (data / "server.pid").exists()


async def test_the_tutorials_workflow_is_made_and_runs_both_ways(tmp_path: Path) -> None:
    """`examples/desk.yaml` is valid, becomes a workflow, and its switch decides."""
    data, file = tmp_path / "demo", str(ROOT / "examples" / "desk.yaml")
    serve = ("demo", "--serve", "--port", str(find_port(0)), "--data-dir", str(data))
    async with started(data, *serve) as server:
        await server.wait_said("Ctrl-C stops the server.")
        valid = await pipelit(data, "workflow", "validate", file)
        made = await pipelit(data, "workflow", "create", file)
        again = await pipelit(data, "workflow", "create", file)
        summed = await pipelit(data, "chat", "desk", "What is 12*17?")
        talked = await pipelit(data, "chat", "desk", "Who are you?")

    assert valid.stdout == b"valid\n", valid.stderr
    assert (made.stdout, again.stdout) == (b"desk\n", b"desk-2\n")
    assert summed.stdout.decode().splitlines()[-1].startswith("Result: 12*17 is 204")
    assert "scripted" in talked.stdout.decode().splitlines()[-1]
