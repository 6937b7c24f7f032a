"""Stopping in order, refusing to start, and `kill -9` under load."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from pipelit.store.secrets import new_key
from tests.kit.api import Api, calling
from tests.kit.player import live_socket
from tests.kit.server_process import ServerProcess, free_port
from tests.reliability.outside import outside
from tests.reliability.workflows import build_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FLOODED = 6
"""Chat sessions that are written to at once."""
ENOUGH = 80
"""Acknowledged messages after which the server is killed."""


def select(server: ServerProcess, query: str) -> list[Any]:
    """Read the database behind the server's back."""
    database = f"file:{server.data / 'db.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as connection:
        return connection.execute(query).fetchall()


def dump(server: ServerProcess) -> list[str]:
    """Return everything the database says."""
    with closing(sqlite3.connect(server.data / "db.sqlite3")) as connection:
        return list(connection.iterdump())


async def test_sigterm_journals_what_finishes_and_releases_what_does_not(tmp_path: Path) -> None:
    """Exit 0; the next start goes on without counting a recovery, and asks nothing twice."""
    late, never = ("f1", "fetch", 1), ("a1", "first", 1)
    async with outside({late, never}) as world:
        environ = {
            "PIPELIT_EGRESS_ALLOW": world.web_address,
            "PIPELIT_SHUTDOWN_GRACE_SECONDS": "2",
        }
        server = ServerProcess(tmp_path, free_port(), environ)
        async with calling(server.url) as api:
            async with server.run() as process:
                await api.setup()
                await build_all(api, world)
                runs = [await api.run("fetchers", text="f1"), await api.run("writers", text="a1")]
                await world.wait_held(1)
                url = f"{server.url.replace('http', 'ws')}/ws/?token={api.key}"
                async with live_socket(url) as socket, api.follow(runs[1]) as events:
                    assert (await events.receive())["type"] == "execution_started"
                    process.terminate()
                    assert await socket.wait_closed() == (1001, "Server shutting down")
                    left = [event["type"] async for event in events]
                    assert left == ["node_status"] * 2
                world.release(late)
                with trio.fail_after(15):
                    assert await process.wait() == 0

            rows = select(server, "SELECT status, owner, epoch, recovery_count FROM executions")
            assert rows == [("running", None, None, 0)] * 2

            async with server.run() as process:
                with trio.fail_after(10):
                    while world.asked[never] < 2:
                        await world.wait_change()
                assert select(server, "SELECT max(recovery_count) FROM executions") == [(0,)]
                world.release()
                fetcher, writer = [await api.wait_end(run) for run in runs]
                assert await server.stop(process) == 0

        outputs = [detail["final_output"] for detail in (fetcher, writer)]
        assert outputs == [{"output": "left of f1"}, {"output": "second well a1"}]
        assert world.asked[late] == 1
        recovered = [
            log["node_id"]
            for detail in (fetcher, writer)
            for log in detail["logs"]
            if (log["metadata"] or {}).get("recovered")
        ]
        assert recovered == ["first"]


async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    """Whatever runs and however long its grace is."""
    held = "a1", "first", 1
    async with outside({held}) as world:
        server = ServerProcess(tmp_path, free_port(), {"PIPELIT_SHUTDOWN_GRACE_SECONDS": "60"})
        async with calling(server.url) as api, server.run() as process:
            await api.setup()
            await build_all(api, world)
            await api.run("writers", text="a1")
            await world.wait_held(1)
            url = f"{server.url.replace('http', 'ws')}/ws/?token={api.key}"
            async with live_socket(url) as socket:
                process.terminate()
                await socket.wait_closed()
            assert process.poll() is None

            process.terminate()

            with trio.fail_after(5):
                assert await process.wait() == 1


async def test_a_server_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    """The database is taken, the port is taken, the key is wrong: exit code 1 each time."""
    (tmp_path / "other").mkdir()
    server = ServerProcess(tmp_path, free_port())
    async with server.run() as process:
        second = ServerProcess(tmp_path, free_port())
        code, said = await second.fail_to_start()
        sentence = f"Another Pipelit server (pid {process.pid}) uses this database."
        assert (code, said.splitlines()[-1]) == (1, sentence)
        assert "Traceback" not in said

        port = int(server.url.rpartition(":")[2])
        code, said = await ServerProcess(tmp_path / "other", port).fail_to_start()
        sentence = f"Cannot listen on 127.0.0.1:{port}: Address already in use. "
        sentence += "Choose another with --port."
        assert (code, said.splitlines()[-1]) == (1, sentence)
        assert "Traceback" not in said
        assert await server.stop(process) == 0

    before = dump(server)
    third = ServerProcess(tmp_path, free_port(), {"PIPELIT_FIELD_ENCRYPTION_KEY": new_key()})
    code, said = await third.fail_to_start()
    assert code == 1
    assert said.splitlines()[-1].startswith("Wrong encryption key: this database was encrypted ")
    assert "Traceback" not in said
    assert dump(server) == before


async def test_every_acknowledged_message_survives_kill_9_and_runs(tmp_path: Path) -> None:
    """In the middle of messages at full speed; no acknowledged execution is missing or stuck."""
    server = ServerProcess(tmp_path, free_port())
    acknowledged: list[str] = []
    enough = trio.Event()

    async def flood(api: Api, slug: str) -> None:
        while True:
            try:
                answer = await api.call("POST", f"/workflows/{slug}/chat/", {"text": "hello"})
            except httpx2.TransportError:
                return  # killed
            if answer.status_code == 200:
                acknowledged.append(answer.json()["execution_id"])
                if len(acknowledged) >= ENOUGH:
                    enough.set()

    async with calling(server.url) as api:
        async with server.run() as process, trio.open_nursery() as nursery:
            await api.setup()
            for number in range(FLOODED):
                await api.build(
                    f"echo-{number}",
                    {
                        "chat_in": ("trigger_chat", {}),
                        "say": ("reply_chat", {"extra_config": {"message": "{{ trigger.text }}"}}),
                    },
                    "chat_in -> say",
                )
                nursery.start_soon(flood, api, f"echo-{number}")
            with trio.fail_after(30):
                await enough.wait()
            process.kill()
            await process.wait()

        async with server.run() as process:
            for execution_id in acknowledged:
                detail = await api.wait_end(execution_id)
                assert detail["final_output"] == {"output": "hello"}
            assert await server.stop(process) == 0

    stored = select(server, "SELECT status, count(*) FROM executions GROUP BY status")
    (count,) = [number for status, number in stored if status == "completed"]
    assert len(stored) == 1
    assert count >= len(set(acknowledged)) == len(acknowledged) >= ENOUGH
    said = select(server, "SELECT role, count(*) FROM thread_messages GROUP BY role ORDER BY role")
    assert said == [("assistant", count), ("user", count)]
