"""`kill -9` while parents wait for children: each child runs once, and its result is used once."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.api import Api, calling
from tests.kit.server_process import ServerProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NAP_SECONDS = 2


async def build(api: Api) -> None:
    """Build `child`, which waits and then answers, and `parent`, which runs it and answers."""
    nap = {"extra_config": {"duration": NAP_SECONDS, "unit": "seconds"}}
    say = {"extra_config": {"message": "did {{ trigger.payload.job }}"}}
    await api.build(
        "child",
        {"start": ("trigger_workflow", {}), "nap": ("wait", nap), "say": ("reply_chat", say)},
        "start -> nap, nap -> say",
    )
    call = {"target_workflow": "child", "input_mapping": {"job": "{{ trigger.text }}"}}
    tell = {"extra_config": {"message": "{{ call.text }}"}}
    await api.build(
        "parent",
        {
            "start": ("trigger_manual", {}),
            "call": ("workflow", {"extra_config": call}),
            "tell": ("reply_chat", tell),
        },
        "start -> call, call -> tell",
    )


async def test_killed_parents_find_their_children_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port())
    async with calling(server.url) as api:
        async with server.run() as process:
            await api.setup()
            await build(api)
            started = [await api.run("parent", text=f"job {number}") for number in range(3)]
            for execution_id in started:
                await api.wait_for(execution_id, node_id="call", status="waiting")
            process.kill()
            await process.wait()

        async with server.run() as process:
            details = [await api.wait_end(execution_id) for execution_id in started]
            events = [await api.events(execution_id) for execution_id in started]
            assert await server.stop(process) == 0

    outputs = [detail["final_output"] for detail in details]
    assert outputs == [{"output": f"did job {number}"} for number in range(3)]
    for story in events:
        assert [event["seq"] for event in story] == list(range(1, len(story) + 1))
        assert story[-1]["data"]["activity_summary"]["child_count"] == 1
        told = [e["data"]["status"] for e in story if e["data"].get("node_id") == "call"]
        assert told == ["pending", "running", "waiting", "success"]
    with closing(sqlite3.connect(server.data / "db.sqlite3")) as database:
        parents = database.execute(
            "SELECT parent_execution_id, recovery_count FROM executions WHERE depth = 1"
        ).fetchall()
    assert sorted(parents) == sorted((execution_id, 0) for execution_id in started)
