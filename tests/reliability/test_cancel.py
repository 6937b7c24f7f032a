"""Cancelling by REST stops everything at once: what a hanging model call costs is 0.3 s."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from tests.kit.api import Api, calling, node_events
from tests.kit.model_server import ModelCall, model_server
from tests.kit.server_process import ServerProcess, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROMISE = 0.3
"""Seconds from the cancel request until the provider has lost its client."""

NODES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat_in": ("trigger_chat", {}),
    "model": ("ai_model", {"llm_credential_id": 1, "model_name": "demo-1"}),
    "thinker": ("agent", {"system_prompt": "Think."}),
    "say": ("reply_chat", {"extra_config": {"message": "{{ thinker.output }}"}}),
}
EDGES = "chat_in -> thinker, model -> thinker : llm, thinker -> say"


async def _cancel(api: Api, execution_id: str, call: ModelCall) -> tuple[float, Any]:
    """Cancel; return the seconds until the call was gone, and the answer."""
    answers: list[httpx2.Response] = []

    async def request() -> None:
        answers.append(await api.call("POST", f"/executions/{execution_id}/cancel/"))

    async with trio.open_nursery() as nursery:
        asked_at = trio.current_time()
        nursery.start_soon(request)
        await call.wait_gone()
        seconds = trio.current_time() - asked_at
    assert answers[0].status_code == 200
    return seconds, answers[0].json()


@pytest.mark.parametrize("begun", [False, True], ids=["unanswered", "half answered"])
async def test_cancel_ends_a_hanging_model_call_within_300_ms(tmp_path: Path, begun: bool) -> None:
    """The provider sees the disconnect, and every row and event says what happened."""
    server = ServerProcess(tmp_path, free_port())
    async with model_server() as provider, calling(server.url) as api, server.run() as process:
        await api.setup()
        await api.add_model(provider.url)
        await api.build("thinking", NODES, EDGES)
        execution_id = await api.chat("thinking", "Please hang.")
        call = await provider.next_call()
        if begun:
            await call.begin()
            text = {"index": 0, "delta": {"content": "Well"}, "finish_reason": None}
            await call.send_events([{"choices": [text]}])

        seconds, answer = await _cancel(api, execution_id, call)

        assert seconds <= PROMISE
        assert (answer["status"], answer["llm_calls"]) == ("cancelled", 1)
        await _check_records(api, execution_id, answer)
        again = await api.post(f"/executions/{execution_id}/cancel/")
        assert again == answer
        assert provider.waiting_calls == 0
        history = await api.get("/workflows/thinking/chat/history")
        assert [m["role"] for m in history["messages"]] == ["user"]
        assert await server.stop(process) == 0


async def _check_records(api: Api, execution_id: str, answer: Any) -> None:
    detail, events = await api.show(execution_id), await api.events(execution_id)
    assert {name: detail[name] for name in answer} == answer
    assert (detail["error_message"], detail["error_code"]) == ("", None)
    assert detail["completed_at"] >= detail["started_at"]
    assert detail["final_output"] is None
    logs = [(e["node_id"], e["status"], e["error"], e["error_code"]) for e in detail["logs"]]
    assert logs == [
        ("chat_in", "success", "", None),
        ("thinker", "failed", "Execution cancelled", "Cancelled"),
        ("say", "skipped", "", None),
    ]
    assert [event["seq"] for event in events] == list(range(1, 7))
    assert [event["type"] for event in events][::5] == ["execution_started", "execution_cancelled"]
    assert events[-1]["data"] == {"execution_id": execution_id}
    assert node_events(events, "thinker") == ["pending", "running", "failed"]
    assert node_events(events, "say") == ["skipped"]
    failed, skipped = events[-3]["data"], events[-2]["data"]
    assert (failed["error"], failed["error_code"]) == ("Execution cancelled", "Cancelled")
    assert failed["will_retry"] is False
    assert skipped["reason"] == "execution cancelled"
