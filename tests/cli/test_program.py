"""The program around its commands: Ctrl-C, a reader that leaves, fast start, help."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from pipelit.cli.app import COMMANDS, program
from pipelit.cli.running import run_trio
from tests.cli.fake_server import RUN_ID, FakeServer, event, node, serving
from tests.cli.test_commands import EXECUTION, environment

LIGHT = ("workflow", "executions", "schedules", "chat", "run", "login", "setup")
HEAVY = ("pydantic", "jinja2", "sqlalchemy", "quart", "hypercorn", "pipelit.engine.dsl")


async def interrupt(
    server: FakeServer, directory: Path, *args: str, after: bytes = b"running", times: int = 1
) -> tuple[int, str]:
    """Run a command, press Ctrl-C when it has said *after*; return exit code and all output."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipelit", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(server, directory) | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = b""
    with trio.fail_after(60):
        for number in range(times):
            while (after if number == 0 else b"Cancelling") not in said:
                part = await process.stdout.receive_some()
                assert part, said
                said += part
            process.send_signal(signal.SIGINT)
        async for part in process.stdout:
            said += part
        code = await process.wait()
    await process.stdout.aclose()
    return code, said.decode()


@pytest.mark.slow
async def test_ctrl_c_while_watching_is_one_line(tmp_path: Path) -> None:
    """Exit code 130, no traceback; the execution goes on."""
    async with serving() as server:
        server.answer("GET", f"/executions/{RUN_ID}/", 200, EXECUTION)
        server.play(node(1, "agent_1", "running"), event(2, "execution_cancelled"))
        code, said = await interrupt(server, tmp_path, "executions", "watch", RUN_ID)

    assert code == 130, said
    assert said.splitlines()[-1] == "Stopped watching; the execution goes on."
    assert "Traceback" not in said


@pytest.mark.slow
async def test_a_second_ctrl_c_in_a_chat_leaves_at_once(tmp_path: Path) -> None:
    """Whatever the server does about the cancel."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.hold_cancel = True
        server.play(node(1, "agent_1", "running"), event(2, "execution_cancelled"))
        code, said = await interrupt(server, tmp_path, "chat", "demo", "hang", times=2)

    assert code == 130, said
    assert said.splitlines()[-1] == "Stopped."
    assert "Traceback" not in said


@pytest.mark.slow
async def test_ctrl_c_while_the_server_is_away_says_that_the_run_goes_on(tmp_path: Path) -> None:
    """Exit code 3 at once, and the command that cancels it later."""
    told: list[tuple[int, str]] = []

    async def chat(server: FakeServer) -> None:
        told.append(
            await interrupt(server, tmp_path, "chat", "demo", "hang", after=b"Connection lost")
        )

    async with trio.open_nursery() as nursery, serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.play(node(1, "agent_1", "running"))
        nursery.start_soon(chat, server)
        await server.played.wait()

    code, said = told[0]
    assert code == 3, said
    assert "was not cancelled" in said
    assert f"pipelit executions cancel {RUN_ID}" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_ctrl_c_during_the_imports_is_one_line(tmp_path: Path) -> None:
    """An import that is interrupted ends like everything else."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os, signal\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pipelit.cli.app':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pipelit", "workflow", "list"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error() -> None:
    """`pipelit … | head -1` says nothing of a broken pipe."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end) as closed:
        done = subprocess.run(
            [sys.executable, "-m", "pipelit", "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )

    assert done.stderr == b""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError()])
def test_what_ends_a_command_leaves_its_exception_groups(error: BaseException) -> None:
    """However deep it was raised."""

    async def fail() -> None:
        raise error

    async def command() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    with pytest.raises(type(error)):
        run_trio(command)


@pytest.mark.slow
def test_commands_that_talk_to_a_server_load_no_server() -> None:
    """They start fast."""
    script = (
        "import sys, click\n"
        "from pipelit.cli.app import program\n"
        f"for name in {LIGHT!r}:\n"
        "    assert program.get_command(click.Context(program), name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("group", [(), ("workflow",), ("executions",), ("schedules",)])
def test_no_summary_is_cut_off_on_80_columns(group: tuple[str, ...]) -> None:
    """The help is readable, and the main help tells the exit codes."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelit", *group, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
        timeout=60,
    )

    assert "..." not in done.stdout.replace("[ARGS]...", "")
    assert group or "Exit codes: 0 success" in done.stdout


def test_every_command_is_there_under_its_name() -> None:
    """The table of lazy commands tells the truth."""
    assert program.list_commands(program.make_context("pipelit", ["serve"])) == sorted(COMMANDS)
