"""Executions over HTTP: the objects, their lists, who sees them. Contract: executions.md."""

import re
import uuid
from typing import Any

import pytest
import trio

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.people import problems, refusal
from tests.kit.site import People, build_echo, build_thinker

pytestmark = pytest.mark.slow

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
NOT_FOUND = (404, "Execution not found.")
EXECUTION = {
    "execution_id",
    "workflow_slug",
    "status",
    "error_message",
    "error_code",
    "started_at",
    "completed_at",
    "total_tokens",
    "total_cost_usd",
    "llm_calls",
    "retry_of",
}
DETAIL = EXECUTION | {
    "final_output",
    "trigger_payload",
    "last_seq",
    "logs",
    "pending_confirmations",
}


def is_moment(text: object) -> bool:
    return isinstance(text, str) and MOMENT.fullmatch(text) is not None


async def test_a_completed_execution_shows_every_field(people: People, slug: str) -> None:
    """The detail, the list and the short form of one run say the same."""
    await build_echo(people.olga, slug)
    execution_id = await people.olga.run(slug, text="hi", extra=1)

    detail = await people.olga.wait_end(execution_id)

    assert set(detail) == DETAIL
    assert str(uuid.UUID(execution_id)) == execution_id
    assert is_moment(detail["started_at"])
    assert is_moment(detail["completed_at"])
    assert detail["completed_at"] >= detail["started_at"]
    known = {name: detail[name] for name in DETAIL - {"logs", "started_at", "completed_at"}}
    assert known == {
        "execution_id": execution_id,
        "workflow_slug": slug,
        "status": "completed",
        "error_message": "",
        "error_code": None,
        "total_tokens": 0,
        "total_cost_usd": 0.0,
        "llm_calls": 0,
        "retry_of": None,
        "final_output": {"output": "hi"},
        "trigger_payload": {"text": "hi", "payload": {"text": "hi", "extra": 1}},
        "last_seq": 5,
        "pending_confirmations": [],
    }
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}")
    assert listed == {"items": [{name: detail[name] for name in EXECUTION}], "total": 1}
    assert await people.olga.get(f"/executions/{execution_id}/status/") == {
        "execution_id": execution_id,
        "workflow": slug,
        "status": "completed",
        "started_at": detail["started_at"],
        "completed_at": detail["completed_at"],
        "final_output": {"output": "hi"},
        "error_message": None,
    }


async def test_log_rows_show_every_field(people: People, slug: str) -> None:
    """The trigger's row is first; a plain node says nothing in input and metadata."""
    await build_echo(people.olga, slug)
    detail = await people.olga.wait_end(await people.olga.chat(slug, "hi"))

    trigger, say = detail["logs"]

    assert trigger["id"] < say["id"]
    for log in (trigger, say):
        assert is_moment(log.pop("timestamp"))
        assert isinstance(log.pop("id"), int)
        assert isinstance(log.pop("duration_ms"), int)
    common = {"status": "success", "input": None, "error": "", "error_code": None, "metadata": None}
    assert trigger == common | {"node_id": "chat_in", "output": {"text": "hi"}}
    assert say == common | {"node_id": "say", "output": {"output": "hi"}}


async def test_an_agent_logs_its_model_tokens_and_trace(
    people: People, slug: str, provider: ModelServer
) -> None:
    """What it received is the input; the usage counts in the execution too."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.chat(slug, "Why?")
    await (await provider.next_call()).say("Because.")

    detail = await people.olga.wait_end(execution_id)

    assert detail["final_output"] == {"output": "Because."}
    assert (detail["total_tokens"], detail["llm_calls"]) == (2, 1)
    log = detail["logs"][1]
    assert log["input"] == {"text": "Why?", "system_prompt": "Think."}
    assert log["output"] == {"output": "Because."}
    metadata = log["metadata"]
    assert (metadata["model"], metadata["tokens"]) == ("demo-1", 2)
    assert metadata["token_usage"] == {
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "cost_usd": 0.0,
        "llm_calls": 1,
        "tool_invocations": 0,
    }
    assert [message["content"] for message in metadata["trace"]] == ["Why?", "Because."]


async def test_a_pending_execution_has_not_started(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Second in its session it waits: no start, no event, no log; cancelled it has one event."""
    await build_thinker(people.olga, slug, provider)
    first = await people.olga.chat(slug, "one")
    await provider.next_call()
    second = await people.olga.chat(slug, "two")

    detail = await people.olga.show(second)
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}")

    assert (detail["status"], detail["started_at"], detail["completed_at"]) == (
        "pending",
        None,
        None,
    )
    assert (detail["logs"], detail["last_seq"]) == ([], 0)
    assert [item["execution_id"] for item in listed["items"]] == [second, first]
    cancelled = await people.olga.post(f"/executions/{second}/cancel/")
    assert (cancelled["status"], cancelled["started_at"]) == ("cancelled", None)
    assert is_moment(cancelled["completed_at"])
    (event,) = await people.olga.events(second)
    assert (event["type"], event["seq"]) == ("execution_cancelled", 1)
    assert (await people.olga.show(second))["logs"] == []
    await people.olga.post(f"/executions/{first}/cancel/")
    assert provider.waiting_calls == 0


async def test_a_failed_node_fails_the_execution(people: People, slug: str) -> None:
    """Row, log and events name the node, the reason and the code; what follows is skipped."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "fetch": ("http_request", {"extra_config": {"url": "http://10.0.0.1/"}}),
            "say": ("reply_chat", {"extra_config": {"message": "done"}}),
            "other": ("wait", {"extra_config": {"duration": 60}}),
        },
        "start -> fetch, fetch -> say, start -> other",
    )
    execution_id = await people.olga.run(slug)

    detail = await people.olga.wait_end(execution_id)

    assert (detail["status"], detail["final_output"]) == ("failed", None)
    logs = {log["node_id"]: log for log in detail["logs"]}
    code, error = logs["fetch"]["error_code"], logs["fetch"]["error"]
    assert (detail["error_code"], detail["error_message"]) == (code, f"Node fetch failed: {error}")
    assert logs["fetch"]["output"] is None
    assert logs["say"]["metadata"] == {"skip_reason": "Upstream node failed"}
    assert (logs["other"]["error_code"], logs["other"]["error"]) == (
        "Cancelled",
        "Execution failed",
    )
    events = await people.olga.events(execution_id)
    assert events[-1]["type"] == "execution_failed"
    assert events[-1]["data"] == {
        "execution_id": execution_id,
        "error": detail["error_message"],
        "error_code": code,
        "node_id": "fetch",
    }
    status = await people.olga.get(f"/executions/{execution_id}/status/")
    assert status["error_message"] == detail["error_message"]


async def test_a_graph_without_nodes_fails_with_two_events(people: People, slug: str) -> None:
    """Nothing ran, so nothing is skipped either."""
    await people.olga.build(slug, {"start": ("trigger_manual", {})}, "")
    execution_id = await people.olga.run(slug)

    detail = await people.olga.wait_end(execution_id)

    assert detail["error_message"] == f"Workflow '{slug}' has no executable nodes"
    assert (detail["status"], detail["error_code"]) == ("failed", "ValidationError")
    events = await people.olga.events(execution_id)
    assert [event["type"] for event in events] == ["execution_started", "execution_failed"]


async def test_the_time_limit_fails_the_execution(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The model call is broken off and the message says both figures."""
    await build_thinker(people.olga, slug, provider, max_execution_seconds=1)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()

    await call.wait_gone()
    detail = await people.olga.wait_end(execution_id)

    assert detail["error_message"] == "Execution timed out after 1s (limit: 1s)"
    assert (detail["status"], detail["error_code"]) == ("failed", "ExecutionTimeoutError")
    assert detail["llm_calls"] == 1


async def test_cancelling_at_once_and_again_gives_one_answer_and_one_event(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Whoever may see it may cancel it, any number of times."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()

    answers: list[Any] = []

    async def cancel(api: Api) -> None:
        answers.append(await api.post(f"/executions/{execution_id}/cancel/"))

    async with trio.open_nursery() as nursery:
        for api in (people.olga, people.ada, people.olga):
            nursery.start_soon(cancel, api)
    await call.wait_gone()

    assert answers[0]["status"] == "cancelled"
    assert answers == [answers[0]] * 3
    assert set(answers[0]) == EXECUTION
    events = [event["type"] for event in await people.olga.events(execution_id)]
    assert events.count("execution_cancelled") == 1
    completed = await people.olga.post(f"/executions/{execution_id}/cancel/")
    assert completed == answers[0]


async def test_deleting_the_workflow_cancels_and_keeps_its_executions(
    people: People, slug: str, provider: ModelServer
) -> None:
    """They keep the last slug and stay visible."""
    await build_thinker(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()
    renamed = await people.olga.call("PATCH", f"/workflows/{slug}/", {"slug": f"{slug}-2"})
    assert renamed.status_code == 200
    assert (await people.olga.show(execution_id))["workflow_slug"] == f"{slug}-2"

    gone = await people.olga.call("DELETE", f"/workflows/{slug}-2/")

    assert gone.status_code == 204
    await call.wait_gone()
    detail = await people.olga.show(execution_id)
    assert (detail["status"], detail["workflow_slug"]) == ("cancelled", f"{slug}-2")
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}-2")
    assert listed["total"] == 1


async def test_lists_are_newest_first_and_filtered(people: People, slug: str) -> None:
    """Filters combine, empty ones do nothing, pages do not overlap."""
    await build_echo(people.olga, slug)
    ids = []
    for text in ("a", "b", "c"):
        ids.append(await people.olga.run(slug, text=text))
        await people.olga.wait_end(ids[-1])

    async def listed(query: str) -> tuple[list[str], int]:
        page = await people.olga.get(f"/executions/?workflow_slug={slug}{query}")
        return [item["execution_id"] for item in page["items"]], page["total"]

    assert await listed("") == (ids[::-1], 3)
    assert await listed("&status=completed") == (ids[::-1], 3)
    assert await listed("&status=&unknown=1") == (ids[::-1], 3)
    assert await listed("&status=failed") == ([], 0)
    assert await listed("&status=failed&status=completed") == (ids[::-1], 3)
    assert await listed("&limit=2") == (ids[:0:-1], 3)
    assert await listed("&limit=2&offset=2") == (ids[:1], 3)
    assert await listed("&limit=0") == ([], 3)
    assert await listed("&offset=9") == ([], 3)
    assert await people.olga.get("/executions/?workflow_slug=no-such") == {"items": [], "total": 0}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limit=1001", "query.limit: must be <= 1000"),
        ("limit=-1", "query.limit: must be >= 0"),
        ("limit=x", "query.limit: must be an integer"),
        ("limit=", "query.limit: must be an integer"),
        ("offset=-1", "query.offset: must be >= 0"),
        (
            "status=done",
            "query.status: must be one of: "
            "pending, running, interrupted, completed, failed, cancelled",
        ),
    ],
)
async def test_bad_queries_are_refused(people: People, query: str, problem: str) -> None:
    """With the message the conventions give."""
    assert problems(await people.olga.call("GET", f"/executions/?{query}")) == [problem]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "status/"), ("GET", "events/"), ("POST", "cancel/")],
)
async def test_what_is_not_visible_is_not_there(
    people: People, slug: str, method: str, path: str
) -> None:
    """Another user's execution and one that never was look the same."""
    await build_echo(people.olga, slug)
    execution_id = await people.olga.run(slug)
    await people.olga.wait_end(execution_id)

    hidden = await people.otto.call(method, f"/executions/{execution_id}/{path}")
    missing = await people.olga.call(method, f"/executions/{uuid.UUID(int=7)}/{path}")
    odd = await people.olga.call(method, f"/executions/no-uuid/{path}")
    as_stream = await people.otto.call(
        method, f"/executions/{execution_id}/{path}", accept="text/event-stream"
    )

    assert refusal(hidden) == refusal(missing) == refusal(odd) == refusal(as_stream) == NOT_FOUND
    assert (await people.ada.call(method, f"/executions/{execution_id}/{path}")).status_code == 200


async def test_owner_starter_and_admin_see_an_execution(people: People, slug: str) -> None:
    """Otto starts Olga's public workflow; what Olga starts there stays hidden from him."""
    await build_echo(people.olga, slug, is_public=True)
    ottos, olgas = await people.otto.run(slug), await people.olga.run(slug)
    for execution_id in (ottos, olgas):
        await people.olga.wait_end(execution_id)

    async def listed(api: Api) -> set[str]:
        page = await api.get(f"/executions/?workflow_slug={slug}")
        assert page["total"] == len(page["items"])
        return {item["execution_id"] for item in page["items"]}

    assert await listed(people.otto) == {ottos}
    assert await listed(people.olga) == await listed(people.ada) == {ottos, olgas}
    assert (await people.otto.show(ottos))["status"] == "completed"
    assert refusal(await people.otto.call("GET", f"/executions/{olgas}/")) == NOT_FOUND
