"""`kill -9` in the middle of a loop: it goes on there, and no finished item is done twice."""

from pathlib import Path
from typing import Any

import pytest

from tests.kit.api import Api, calling
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.ws_client import ws_client
from tests.reliability.outside import Outside, outside

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ITEMS = 12
HELD = ("i7", "post", 1)


async def build(api: Api, world: Outside) -> None:
    """A loop over the numbers of the payload that posts each, and says how many there were."""
    url = f"{world.web_url}/i{{{{ loop.item }}}}/post"
    each = {"source_node": "start", "field": "payload.numbers", "max_iterations": ITEMS}
    await api.build(
        "batch",
        {
            "start": ("trigger_manual", {}),
            "each": ("loop", {"extra_config": each}),
            "post": ("http_request", {"extra_config": {"method": "POST", "url": url, "body": "x"}}),
            "say": (
                "reply_chat",
                {"extra_config": {"message": "{{ each.results | map(attribute='post') "
                                             "| map(attribute='json') | map(attribute='text') "
                                             "| join(', ') }}"}},
            ),
        },
        "start -> each, each -> post : loop_body, post -> each : loop_return, each -> say",
    )  # fmt: skip


async def test_a_killed_loop_goes_on_with_the_item_it_was_at(tmp_path: Path) -> None:
    """A socket that comes back with the last number it saw hears the rest, gapless."""
    async with outside([HELD]) as world:
        server = ServerProcess(tmp_path, free_port(), {"PIPELIT_EGRESS_ALLOW": world.web_address})
        async with calling(server.url) as api:
            async with server.run() as process:
                await api.setup()
                await build(api, world)
                execution_id = await api.run("batch", numbers=list(range(ITEMS)))
                channel = f"execution:{execution_id}"
                async with ws_client(server.url, token=api.key) as socket:
                    await socket.subscribe(channel, since=0)
                    frames = await socket.hear_until("node_status", node_id="post", iteration="6",
                                                     status="success")  # fmt: skip
                    await world.wait_held(1)
                    process.kill()
                    await process.wait()

            async with server.run() as process:
                await world.wait_held(2)
                async with ws_client(server.url, token=api.key) as socket:
                    await socket.subscribe(channel, since=frames[-1]["seq"])
                    world.release()
                    frames += await socket.hear_until("execution_completed")
                detail = await api.show(execution_id)
                assert await api.events(execution_id) == frames
                assert await server.stop(process) == 0

    check_frames(frames)
    check_detail(detail)
    asked = {question: count for question, count in world.asked.items() if count != 1}
    assert asked == {HELD: 2}
    keys = {f"i{index}": {f"{execution_id}:post:{index}"} for index in range(ITEMS)}
    assert {run: found for (run, _, _), found in world.keys.items()} == keys


def check_frames(frames: list[Any]) -> None:
    """Numbered without a gap; the loop says each item it comes to, once."""
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    places = [
        frame["data"]["loop"]["index"]
        for frame in frames
        if frame["data"].get("node_id") == "each" and "loop" in frame["data"]
    ]
    assert places == list(range(ITEMS))
    done = [
        (frame["data"]["iteration"], frame["data"]["loop"]["total"])
        for frame in frames
        if frame["data"].get("node_id") == "post" and frame["data"]["status"] == "success"
    ]
    assert done == [(str(index), ITEMS) for index in range(ITEMS)]


def check_detail(detail: Any) -> None:
    """Each item has its row; that of the item at which the server died says so."""
    said = ", ".join(f"post of i{index}" for index in range(ITEMS))
    assert (detail["status"], detail["final_output"]) == ("completed", {"output": said})
    rows = [log["metadata"] for log in detail["logs"] if log["node_id"] == "post"]
    assert [row["iteration"] for row in rows] == [str(index) for index in range(ITEMS)]
    assert [row.get("recovered", False) for row in rows] == [index == 7 for index in range(ITEMS)]
