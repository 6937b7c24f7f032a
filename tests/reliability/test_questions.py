"""Questions to people outlive the server, however it ends."""

from pathlib import Path

import pytest

from tests.kit.api import calling
from tests.kit.server_process import ServerProcess, free_port

pytestmark = pytest.mark.slow


async def test_a_question_survives_kill_9_and_is_answered_once(tmp_path: Path) -> None:
    """It is the same question; the run goes on from it, and no recovery is counted."""
    server = ServerProcess(tmp_path, free_port())
    async with calling(server.url) as api:
        async with server.run() as process:
            await api.setup()
            await api.build(
                "ask",
                {
                    "start": ("trigger_manual", {}),
                    "sure": ("human_confirmation", {}),
                    "say": ("reply_chat", {"extra_config": {"message": "{{ sure.confirmed }}"}}),
                },
                "start -> sure, sure -> say",
            )
            runs = [await api.run("ask") for _ in range(2)]
            for execution_id in runs:
                await api.wait_for(execution_id, node_id="sure", status="waiting")
            before = [(await api.show(run))["pending_confirmations"] for run in runs]
            process.kill()
            await process.wait()

        async with server.run() as process:
            after = [(await api.show(run))["pending_confirmations"] for run in runs]
            answer = {"input": "yes", "task_id": before[0][0]["task_id"]}
            await api.post(f"/executions/{runs[0]}/resume/", answer)
            ended = await api.wait_end(runs[0])
            waiting = await api.show(runs[1])
            assert await server.stop(process) == 0

    assert after == before
    assert ended["final_output"] == {"output": "True"}
    assert waiting["status"] == "interrupted"
    metadata = [log["metadata"] for log in ended["logs"]]
    assert metadata == [None] * 3
