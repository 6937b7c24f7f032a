"""A backup taken under load is a whole server somewhere else. Contract: operations.md §4."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import trio

from tests.kit.api import Api, calling
from tests.kit.model_server import model_server
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import build_echo, build_thinker
from tests.reliability.records import check_records

pytestmark = pytest.mark.slow


async def pipelit(directory: Path, *args: str) -> str:
    environ = {name: text for name, text in os.environ.items() if "PIPELIT" not in name}
    done = await trio.run_process(
        [sys.executable, "-m", "pipelit", *args, "--data-dir", str(directory)],
        env=environ,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


async def keep_busy(api: Api, started: list[str]) -> None:
    while True:
        started.append(await api.run("echo"))


async def test_a_backup_under_load_is_restored_elsewhere(tmp_path: Path) -> None:
    """Sound, with everything acknowledged before it began; what ran then goes on."""
    first = ServerProcess(tmp_path / "first", free_port())
    second = ServerProcess(tmp_path / "second", free_port())
    for server in (first, second):
        await trio.Path(server.data).mkdir(parents=True)
    started: list[str] = []
    async with model_server() as provider:
        async with first.run(), calling(first.url) as api:
            await api.setup()
            await build_echo(api, "echo")
            await build_thinker(api, "thinker", provider)
            running = await api.run("thinker")
            await provider.next_call()
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(keep_busy, api, started)
                while len(started) < 20:
                    await trio.lowlevel.checkpoint()
                before = [*started]
                copy = await pipelit(first.data, "db", "backup")
                nursery.cancel_scope.cancel()
            assert len(started) > len(before), "nothing was written meanwhile"
            key = api.key
        shutil.copyfile(copy, second.data / "db.sqlite3")
        shutil.copyfile(first.data / "encryption.key", second.data / "encryption.key")
        await pipelit(second.data, "db", "check")

        async with second.run(), calling(second.url) as anyone:
            api = Api(anyone.http, key)
            await (await provider.next_call()).say("Done elsewhere.")
            for execution_id in [*before, running]:
                detail = await api.wait_end(execution_id)
                assert detail["status"] == "completed"
                check_records(detail, await api.events(execution_id))
            assert (await api.get("/system/info/"))["stuck_executions"] == 0
        await pipelit(second.data, "db", "check")
