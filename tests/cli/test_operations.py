"""The operator's commands: actors, logs, db, keys, completion. Contract: operations.md §4."""

import fcntl
import json
import os
import pty
import struct
import sys
import termios
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from click.testing import CliRunner, Result

from pipelit.cli.app import program
from pipelit.cli.client import Client
from pipelit.cli.logs import _follow, tell
from tests.cli.fake_server import serving
from tests.cli.test_commands import environment, pipelit
from tests.cli.test_top import CRASH, INFO, actor, execution


def run(directory: Path, *args: str, **environ: str) -> Result:
    """Run a command in this process on a data directory."""
    return CliRunner().invoke(program, args, env={"PIPELIT_DIR": str(directory), **environ})


@pytest.mark.slow
async def test_the_tree_is_listed_and_one_actor_shown(tmp_path: Path) -> None:
    """With its last error, traceback and all."""
    error = {"type": "RuntimeError", "message": "boom", "traceback": "Traceback: line 1"}
    hub = {**actor("/hub", restarts=2, last_error=error), "children": [actor("/hub/x")]}
    async with serving() as server:
        page = {"items": [actor("/"), hub], "total": 2}
        server.answer("GET", "/system/actors/", 200, page)
        server.answer("GET", "/system/actors/hub", 200, hub)
        listed = await pipelit(server, tmp_path, "actors")
        as_json = await pipelit(server, tmp_path, "actors", "--json")
        one = await pipelit(server, tmp_path, "actors", "/hub")

    assert listed.stdout.decode().splitlines()[2].split() == [
        "/hub", "running", "2", "0/64", "hub", "-",
    ]  # fmt: skip
    assert json.loads(as_json.stdout) == page
    assert "RuntimeError: boom" in one.stdout.decode()
    assert "/hub/x" in one.stdout.decode()
    assert "Traceback: line 1" in one.stderr.decode()


@pytest.mark.slow
async def test_records_are_filtered_and_the_newest_come_last(tmp_path: Path) -> None:
    """By event, kind and the beginning of a path."""
    records: list[Any] = [
        {**CRASH, "seq": number, "actor": f"/chats/{number}", "kind": "chat"}
        for number in range(1, 8)
    ]
    records.append({**CRASH, "seq": 8})
    async with serving() as server:
        server.answer("GET", "/system/supervision/", 200, {"items": records, "total": 8})
        args = ("logs", "--kind", "chat", "--actor", "/chats/", "--limit", "2", "--json")
        done = await pipelit(server, tmp_path, *args)

    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [6, 7]


def test_a_record_is_told_in_one_line() -> None:
    """With its cause, and nothing that steers the terminal."""
    error = {"type": "RuntimeError", "message": "bo\x1b[2Jom"}
    line = tell({**CRASH, "error": error, "detail": {"next": "restart", "thread_id": "3:1"}})

    assert line.endswith("actor_crashed  /hub  RuntimeError: bo[2Jom  next=restart")


def test_a_database_is_made_checked_and_backed_up(tmp_path: Path) -> None:
    """Each says what it did, for people and as JSON."""
    made = run(tmp_path, "db", "upgrade")
    again = run(tmp_path, "db", "upgrade", "--json")
    checked = run(tmp_path, "db", "check")
    copied = run(tmp_path, "db", "backup", "--json")

    assert [one.exit_code for one in (made, again, checked, copied)] == [0, 0, 0, 0]
    assert json.loads(again.stdout)["before"] == json.loads(again.stdout)["after"]
    assert "pages" in checked.stdout
    assert Path(json.loads(copied.stdout)["path"]).stat().st_size > 0


def test_a_database_that_is_not_sound_is_exit_code_1(tmp_path: Path) -> None:
    """And one that is not there, too, in one sentence."""
    nothing = run(tmp_path, "db", "check")
    (tmp_path / "db.sqlite3").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    broken = run(tmp_path, "db", "check")

    assert (nothing.exit_code, broken.exit_code) == (1, 1)
    assert "There is no database" in nothing.stderr
    assert len(broken.stderr.splitlines()) == 1


def test_the_key_is_rotated_in_its_file(tmp_path: Path) -> None:
    """The server finds the new one where it looks."""
    run(tmp_path, "db", "upgrade")
    before = (tmp_path / "encryption.key").read_text()
    nothing_yet = run(tmp_path, "keys", "rotate")

    assert nothing_yet.exit_code == 1
    assert "no encryption key yet" in nothing_yet.stderr
    assert (tmp_path / "encryption.key").read_text() == before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_every_command(tmp_path: Path, shell: str) -> None:
    """The script asks the program, which knows them all."""
    script = run(tmp_path, "completion", shell)

    assert script.exit_code == 0
    assert "_PIPELIT_COMPLETE" in script.stdout


@pytest.mark.slow
async def test_top_is_worked_by_keys_on_a_terminal(tmp_path: Path) -> None:
    """Choose, cancel after a yes, leave; the terminal is as before."""
    run = execution(1)
    async with serving() as server:
        server.answer("GET", "/system/info/", 200, INFO)
        server.answer("GET", "/executions/", 200, {"items": [run], "total": 1})
        server.answer("GET", "/system/actors/", 200, {"items": [actor("/hub")], "total": 1})
        server.answer("GET", "/system/supervision/", 200, {"items": [CRASH], "total": 1})
        cancel = f"/executions/{run['execution_id']}/cancel/"
        server.answer("POST", cancel, 200, {**run, "status": "cancelled"})
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        before = termios.tcgetattr(theirs)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                shown = bytearray()
                nursery.start_soon(_listen, ours, shown)
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "pipelit", "top"],
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                    env={**environment(server, tmp_path), "TERM": "xterm-256color"},
                )
                await _until_shown(shown, "flow-1")
                os.write(ours, b"c")
                await _until_shown(shown, "y/n")
                os.write(ours, b"y")
                await server.cancelled.wait()
                await _until_shown(shown, "is cancelled.")
                os.write(ours, b"\t\r")
                await _until_shown(shown, "Its records")
                os.write(ours, b"q")
                code = await process.wait()
                after = termios.tcgetattr(theirs)
                nursery.cancel_scope.cancel()
        os.close(ours)
        os.close(theirs)

    assert code == 0, shown[-2000:].decode(errors="replace")
    assert after == before
    assert b"\x1b[?1049l" in shown


async def _listen(terminal: int, shown: bytearray) -> None:
    while True:
        await trio.lowlevel.wait_readable(terminal)
        shown += os.read(terminal, 65536)


async def _until_shown(shown: bytearray, text: str) -> None:
    while text.encode() not in shown:
        await trio.lowlevel.checkpoint()


class Polled:
    """A server whose records are asked for again and again."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers, self.asked = list(answers), []

    async def get(self, path: str, **params: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(params["since"])
        items = [one for one in self.answers.pop(0) if one["seq"] > params["since"]]
        return {"items": items, "total": len(items)}


def numbered(*numbers: int, born: float = 0.0) -> list[Any]:
    return [{**CRASH, "seq": number, "timestamp": born + number} for number in numbers]


@pytest.mark.parametrize(
    ("answers", "heard"),
    [
        ([numbered(1, 2, 3), numbered(1, 2, 3, 4)], [3.0, 4.0]),
        ([numbered(1, 2), numbered(1, 2, born=9.0), numbered(1, 2, born=9.0)], [10.0, 11.0]),
        ([numbered(1, 2), [], numbered(1, born=9.0)], [10.0]),
        ([numbered(5, 6)], [5.0, 6.0]),
    ],
    ids=["goes on", "another process", "another with fewer", "some missed"],
)
async def test_following_misses_nothing_and_repeats_nothing(
    autojump_clock: trio.abc.Clock, answers: list[Any], heard: list[float]
) -> None:
    """Also when the server was started again and counts anew."""
    server, seen = Polled(*answers), []
    records = _follow(cast("Client", server), numbered(2)[0])
    while len(seen) < len(heard):
        seen.append((await anext(records))["timestamp"])
    await records.aclose()

    assert seen == heard
