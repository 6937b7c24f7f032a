"""The commands as processes: output, exit codes, Ctrl-C. Contract: operations.md §4."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import msgspec
import pytest
import trio

from tests.cli.fake_server import COMPLETED_RUN, KEY, RUN_ID, FakeServer, event, node, serving

pytestmark = pytest.mark.slow

EXECUTION = {
    "execution_id": RUN_ID, "workflow_slug": "demo", "status": "completed", "error_message": "",
    "error_code": None, "started_at": "2026-03-02T09:05:00.031000",
    "completed_at": "2026-03-02T09:05:00.284000", "total_tokens": 162, "total_cost_usd": 0.0,
    "llm_calls": 2, "retry_of": None,
}  # fmt: skip


def environment(server: FakeServer, directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELIT")}
    return {
        **kept,
        "PIPELIT_DIR": str(directory),
        "PIPELIT_URL": server.url,
        "PIPELIT_API_KEY": KEY,
    }


async def pipelit(
    server: FakeServer, directory: Path, *args: str, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(30):
        return await trio.run_process(
            [sys.executable, "-m", "pipelit", *args],
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(server, directory) | env,
        )


async def test_chat_shows_the_run_node_by_node_and_then_the_reply(tmp_path: Path) -> None:
    """Plain lines in a pipe, the reply last, exit code 0."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.play(*COMPLETED_RUN)
        done = await pipelit(server, tmp_path, "chat", "demo", "What is 12*17?")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].endswith(f"execution {RUN_ID} started")
    assert "calculator" in lines[2]
    assert lines[-1] == "12*17 is 204."
    assert server.asked == [("POST", "/workflows/demo/chat/", {"text": "What is 12*17?"})]


async def test_a_run_can_be_read_by_a_program(tmp_path: Path) -> None:
    """One event per line and nothing else; the exit code says how it ended."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/execute/", 200, {"execution_id": RUN_ID})
        server.play(*COMPLETED_RUN)
        done = await pipelit(server, tmp_path, "run", "demo", "--json")

    assert done.returncode == 0, done.stderr
    events = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert events == list(COMPLETED_RUN)


async def test_a_terminal_shows_what_is_running_until_it_is_done(tmp_path: Path) -> None:
    """The running node and its text stand in a live area that the finished lines replace."""
    pieces = event(None, "chat_delta", node_id="agent_1", text="12*17 ", index=0)
    async with serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.play(*COMPLETED_RUN[:2], pieces, *COMPLETED_RUN[2:])
        shown = await on_a_terminal(server, tmp_path, "chat", "demo", "hi")

    live, _, end = shown.partition("12*17 is 204.")
    assert "running" in live
    assert "| 12*17" in live
    assert "\x1b[2K" in live, "the live area is erased, not scrolled away"
    assert "completed 300 ms" in end


async def on_a_terminal(server: FakeServer, directory: Path, *args: str) -> str:
    """Run a command on a pseudo terminal of 80×24 and return everything it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipelit", *args],
        stdout=theirs,
        stderr=theirs,
        env=environment(server, directory) | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = b""
    with trio.fail_after(30):
        try:
            while True:
                await trio.lowlevel.wait_readable(ours)
                shown += os.read(ours, 65_536)
        except OSError:  # how Linux says that the other side of a terminal is closed
            os.close(ours)
        await process.wait()
    return shown.decode()


async def test_ctrl_c_in_a_chat_cancels_the_execution_on_the_server(tmp_path: Path) -> None:
    """The view stays until the server says so; exit code 1."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.answer("POST", f"/executions/{RUN_ID}/cancel/", 200, EXECUTION)
        server.play(
            event(1, "execution_started"), node(2, "agent_1", "running"),
            event(3, "execution_cancelled"),
        )  # fmt: skip
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "pipelit", "chat", "demo", "hang"],
            stdout=subprocess.PIPE,
            env=environment(server, tmp_path),
        )
        with trio.fail_after(30):
            assert process.stdout is not None
            shown = b""
            while b"running" not in shown:
                shown += await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            async for part in process.stdout:
                shown += part
            code = await process.wait()
        await process.stdout.aclose()

    assert code == 1
    assert b"cancelled" in shown
    assert b"Cancelling" in shown
    assert server.asked[-1][1] == f"/executions/{RUN_ID}/cancel/"


async def test_a_conversation_sends_every_line(tmp_path: Path) -> None:
    """Without TEXT each line of standard input is a message."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/chat/", 200, {"execution_id": RUN_ID})
        server.play(*COMPLETED_RUN)
        server.play(*COMPLETED_RUN)
        done = await pipelit(server, tmp_path, "chat", "demo", stdin="one\n\ntwo\n")

    assert done.returncode == 0, done.stderr
    assert [body["text"] for _, _, body in server.asked] == ["one\n", "two\n"]


async def test_run_exits_0_only_if_the_run_completed(tmp_path: Path) -> None:
    """A failed run is exit code 1, a bad payload 2."""
    async with serving() as server:
        server.answer("POST", "/workflows/demo/execute/", 200, {"execution_id": RUN_ID})
        server.play(event(1, "execution_failed", error="Node a failed: no"))
        failed = await pipelit(server, tmp_path, "run", "demo", "--payload", '{"a": 1}')
        wrong = await pipelit(server, tmp_path, "run", "demo", "--payload", "[1]")

    assert failed.returncode == 1
    assert b"Node a failed: no" in failed.stdout
    assert wrong.returncode == 2
    assert server.asked[0][2] == {"text": "", "payload": {"a": 1}}


async def test_watch_asks_for_the_execution_first(tmp_path: Path) -> None:
    """An unknown one is refused instead of watched for ever."""
    async with serving() as server:
        unknown = await pipelit(server, tmp_path, "executions", "watch", "nope")
        server.answer("GET", f"/executions/{RUN_ID}/", 200, EXECUTION)
        server.play(*COMPLETED_RUN)
        seen = await pipelit(server, tmp_path, "executions", "watch", RUN_ID, "--json")

    assert unknown.returncode == 1
    assert [msgspec.json.decode(line) for line in seen.stdout.splitlines()] == list(COMPLETED_RUN)


async def test_lists_are_plain_lines_in_a_pipe_and_json_on_request(tmp_path: Path) -> None:
    """The id is never cut."""
    page = {"items": [EXECUTION], "total": 3}
    async with serving() as server:
        server.answer("GET", "/executions/", 200, page)
        plain = await pipelit(server, tmp_path, "executions", "list")
        json = await pipelit(server, tmp_path, "executions", "list", "--json")

    assert plain.stdout.decode().splitlines()[1].split() == [
        RUN_ID, "demo", "completed", "253", "ms", "162",
    ]  # fmt: skip
    assert b"1 of 3" in plain.stderr
    assert msgspec.json.decode(json.stdout) == page


async def test_setup_prints_the_key_once_and_remembers_it(tmp_path: Path) -> None:
    """Standard output holds the key alone; the next command needs no login."""
    async with serving() as server:
        server.answer("POST", "/auth/setup/", 200, {"key": KEY, "requires_mfa": False})
        server.answer("GET", "/workflows/", 200, {"items": [], "total": 0})
        args = ("setup", "--username", "ada", "--password-stdin")
        done = await pipelit(server, tmp_path, *args, stdin="correct horse\n", PIPELIT_API_KEY="")
        listed = await pipelit(
            server, tmp_path, "workflow", "list", PIPELIT_API_KEY="", PIPELIT_URL=""
        )

    assert done.stdout.decode() == f"{KEY}\n"
    assert server.asked[0][2] == {"username": "ada", "password": "correct horse"}
    assert listed.returncode == 0, listed.stderr


async def test_login_asks_for_the_code_when_the_server_wants_one(tmp_path: Path) -> None:
    """Two steps, then a key."""
    async with serving() as server:
        server.answer("POST", "/auth/token/", 200, {"key": "", "requires_mfa": True})
        server.answer("POST", "/auth/mfa/login-verify/", 200, {"key": KEY})
        args = ("login", "--username", "ada", "--password-stdin")
        done = await pipelit(server, tmp_path, *args, stdin="pw\n418207\n")

    assert done.returncode == 0, done.stderr
    assert server.asked[1][2] == {"username": "ada", "code": "418207"}
    assert (tmp_path / "login.json").exists()


async def test_without_a_key_the_way_to_one_is_told(tmp_path: Path) -> None:
    """Wrong usage: exit code 2."""
    async with serving() as server:
        done = await pipelit(server, tmp_path, "executions", "list", PIPELIT_API_KEY="")

    assert done.returncode == 2
    assert b"pipelit login" in done.stderr


async def test_without_a_server_the_exit_code_is_3(tmp_path: Path) -> None:
    """It is said how to start one."""
    async with serving() as server:
        done = await pipelit(server, tmp_path, "workflow", "list", PIPELIT_URL="http://127.0.0.1:9")

    assert done.returncode == 3
    assert b"pipelit serve" in done.stderr


async def test_a_server_does_not_start_with_a_bad_setting(tmp_path: Path) -> None:
    """One sentence, exit code 1, nothing created."""
    async with serving() as server:
        done = await pipelit(server, tmp_path / "data", "serve", "--port", "x")

    assert done.returncode == 1
    assert done.stderr.decode() == "Invalid setting PIPELIT_PORT: must be an integer\n"
    assert not (tmp_path / "data").exists()


async def test_validate_tells_every_error_and_refuses(tmp_path: Path) -> None:
    """A slug is checked where it is stored, a file is sent; both refuse with exit code 1."""
    file = tmp_path / "w.yaml"
    file.write_text("name: x")
    async with serving() as server:
        server.answer(
            "POST",
            "/workflows/demo/validate/",
            200,
            {"valid": False, "errors": ["first", "second"], "warnings": ["careful"]},
        )
        server.answer(
            "POST", "/workflows/validate-dsl/", 200, {"valid": True, "errors": [], "warnings": []}
        )
        stored = await pipelit(server, tmp_path, "workflow", "validate", "demo")
        sent = await pipelit(server, tmp_path, "workflow", "validate", str(file))
        missing = await pipelit(server, tmp_path, "workflow", "validate", "gone.yaml")

    assert stored.returncode == 1
    assert b"first\nsecond" in stored.stderr
    assert b"careful" in stored.stderr
    assert (sent.returncode, sent.stdout) == (0, b"valid\n")
    assert missing.returncode == 2
    assert b"Cannot read gone.yaml" in missing.stderr
    assert server.asked[1][2] == {"yaml_str": "name: x"}


async def test_a_file_is_made_a_workflow_and_a_refusal_is_json_too(tmp_path: Path) -> None:
    """The contract's compile result, on standard output."""
    file = tmp_path / "w.yaml"
    file.write_text("name: x\nnodes: [{id: a, type: trigger_manual}]")
    async with serving() as server:
        server.answer("GET", "/credentials/", 200, {"items": [], "total": 0})
        server.answer("POST", "/workflows/", 201, {"slug": "x", "id": 3})
        server.answer("POST", "/workflows/x/nodes/", 201, {})
        made = await pipelit(server, tmp_path, "workflow", "create", str(file), "--json")
        broken = await pipelit(
            server, tmp_path, "workflow", "import", "-", "--json", stdin="steps: []"
        )

    assert msgspec.json.decode(made.stdout) == {
        "success": True, "workflow_id": 3, "slug": "x", "node_count": 1, "edge_count": 0,
        "mode": "created", "warnings": [],
    }  # fmt: skip
    assert broken.returncode == 1
    assert msgspec.json.decode(broken.stdout) == {
        "success": False, "error": "Parse error: DSL requires a `name` field",
    }  # fmt: skip


async def test_a_workflow_is_exported_to_a_file(tmp_path: Path) -> None:
    """Standard output stays free for others."""
    detail = {
        "name": "Two", "slug": "two", "description": "", "tags": [], "nodes": [], "edges": [],
        "max_execution_seconds": 60,
    }  # fmt: skip
    file = tmp_path / "two.yaml"
    async with serving() as server:
        server.answer("GET", "/workflows/two/", 200, detail)
        done = await pipelit(server, tmp_path, "workflow", "export", "two", "-o", str(file))

    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert file.read_text() == (
        "workflow:\n  name: Two\n  max_execution_seconds: 60\nnodes: []\nedges: []\n"
    )


async def test_a_run_is_retried_and_a_question_answered(tmp_path: Path) -> None:
    """The new id is what a script reads; the answer shows what the run is now."""
    async with serving() as server:
        server.answer("POST", f"/executions/{RUN_ID}/retry/", 201, {"execution_id": "new"})
        server.answer("POST", f"/executions/{RUN_ID}/resume/", 200, EXECUTION)
        again = await pipelit(
            server, tmp_path, "executions", "retry", RUN_ID, "--from", "a", "--current"
        )
        answered = await pipelit(server, tmp_path, "executions", "resume", RUN_ID, "yes")

    assert again.stdout == b"new\n"
    assert b"executions watch new" in again.stderr
    assert answered.stdout.decode() == f"{RUN_ID} is completed.\n"
    assert [body for _, _, body in server.asked] == [
        {"from_node": "a", "graph": "current"},
        {"input": "yes", "task_id": None},
    ]
