"""Stopping a busy server. Contract: operations.md §5."""

from pathlib import Path

import pytest
import trio

from tests.kit.api import calling
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.ws_client import ws_client
from tests.reliability.outside import outside
from tests.reliability.workflows import build_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HELD = [("a1", "first", 1), ("a2", "first", 1), ("c1", "think", 1)]
QUEUED = 9


async def test_a_busy_server_stops_in_12_s_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Open sockets, one of which does not read; nodes that never end; runs that wait for a slot."""
    async with outside(HELD) as world:
        environ = {"PIPELIT_MAX_CONCURRENT_EXECUTIONS": "3"}
        server = ServerProcess(tmp_path, free_port(), environ)
        async with calling(server.url) as api:
            async with server.run() as process:
                await api.setup()
                await build_all(api, world)
                chats = [await api.chat("talk", "c1")]
                runs = [await api.run("writers", text=f"a{number}") for number in (1, 2)]
                await world.wait_held(1)
                chats += [await api.chat("talk", f"c{number}") for number in range(2, QUEUED)]
                runs += [await api.run("writers", text=f"a{n}") for n in range(3, QUEUED)]
                async with (
                    ws_client(server.url, token=api.key, receive_buffer=1024) as deaf,
                    ws_client(server.url, token=api.key) as socket,
                    api.follow(runs[0]),
                ):
                    await deaf.subscribe("workflow:writers")
                    await socket.subscribe("workflow:writers")
                    process.terminate()
                    assert (await socket.hear_close())[0] == 1001
                    with trio.fail_after(12):
                        assert await process.wait() == 0

            async with server.run() as process:
                world.release()
                ended = [await api.wait_end(one) for one in [*runs, *chats]]
                assert await server.stop(process) == 0

    assert {detail["status"] for detail in ended} == {"completed"}
    answers = [detail["final_output"]["output"] for detail in ended]
    assert answers == [
        *(f"second well a{number}" for number in range(1, QUEUED)),
        *(f"think well c{number}" for number in range(1, QUEUED)),
    ]
