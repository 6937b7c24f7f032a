"""`kill -9` in the middle of a model call that an epic pays for.

Contract: engine.md §22.5, §25.4.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kit.api import Api, calling
from tests.kit.model_server import ModelCall, ModelServer, model_server
from tests.kit.server_process import ServerProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

REMEMBER = {"name": "remember", "arguments": '{"key": "city", "value": "Bern"}'}


async def build(api: Api, provider: ModelServer) -> None:
    """Build an agent that may remember facts."""
    credential = await api.add_model(provider.url)
    model = {"llm_credential_id": credential, "model_name": "demo-1", "max_tokens": 100}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "t": ("trigger_manual", {}),
        "m": ("ai_model", model),
        "ag": ("agent", {}),
        "memory": ("memory_write", {}),
    }
    await api.build("payer", nodes, "t -> ag, m -> ag : llm, memory -> ag : tool")


async def link(api: Api, execution_id: str) -> None:
    """Let an epic pay for an execution."""
    epic = await api.post("/epics/", {"title": "E", "budget_tokens": 1000})
    task = await api.post("/tasks/", {"epic_id": epic["id"], "title": "T"})
    answer = await api.http.patch(
        f"/api/v1/tasks/{task['id']}/",
        json={"execution_id": execution_id},
        headers={"Authorization": f"Bearer {api.key}"},
    )
    assert answer.status_code == 200, answer.text


async def call_tool(call: ModelCall) -> None:
    calls = [{"index": 0, "id": "c1", "type": "function", "function": REMEMBER}]
    await call.stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        ]
    )


def read(server: ServerProcess, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(server.data / "db.sqlite3")) as conn:
        return conn.execute(statement).fetchall()


async def test_nothing_stays_reserved_and_no_tool_runs_twice(tmp_path: Path) -> None:
    """The call is made again, with the tool's result and a reservation of its own."""
    reserved = "SELECT id, settled FROM reservations"
    async with model_server() as provider:
        server = ServerProcess(tmp_path, free_port())
        async with calling(server.url) as api:
            async with server.run() as process:
                await api.setup()
                await build(api, provider)
                execution_id = await api.run("payer")
                first = await provider.next_call()
                await link(api, execution_id)
                await call_tool(first)
                await provider.next_call()
                before = read(server, reserved)
                process.kill()
                await process.wait()

            async with server.run() as process:
                again = await provider.next_call()
                after = read(server, reserved)
                await again.say("Done.")
                detail = await api.wait_end(execution_id)
                left = read(server, reserved)
                facts = read(server, "SELECT key, times_confirmed FROM facts")
                assert await server.stop(process) == 0

    assert [settled for _, settled in before] == [0]
    assert [settled for _, settled in after] == [0]
    assert before != after
    assert left == []
    assert again.body["messages"][-1]["content"] == "Remembered: city = Bern (created)"
    assert facts == [("city", 1)]
    assert (detail["status"], detail["llm_calls"]) == ("completed", 2)
