"""Failed executions that are tried again, over HTTP. Contract: executions.md "retry"."""

from typing import Any

import pytest

from tests.kit.api import Api, node_events
from tests.kit.model_server import ModelServer
from tests.kit.people import refusal
from tests.kit.site import People, build_echo

pytestmark = pytest.mark.slow

NOT_FOUND = (404, "Execution not found.")


def retry(execution_id: str) -> str:
    return f"/executions/{execution_id}/retry/"


async def build(api: Api, slug: str, duration: object = "soon") -> None:
    """Build a workflow whose second node cannot work before it is repaired."""
    await api.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "first": ("merge", {}),
            "nap": ("wait", {"extra_config": {"duration": duration}}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ nap.output }}"}}),
        },
        "start -> first, first -> nap, nap -> say",
    )


async def repair(api: Api, slug: str) -> None:
    body = {"config": {"extra_config": {"duration": 0}}}
    answer = await api.call("PATCH", f"/workflows/{slug}/nodes/nap/", body)
    assert answer.status_code == 200


async def fail(api: Api, slug: str) -> Any:
    """Run it to its failure."""
    detail = await api.wait_end(await api.run(slug, text="go"))
    assert detail["status"] == "failed"
    return detail


async def test_a_retry_takes_over_what_is_done(people: People, slug: str) -> None:
    """The response, the events and the logs say so; the old execution stays as it was."""
    await build(people.olga, slug)
    old = await fail(people.olga, slug)
    await repair(people.olga, slug)

    answer = await people.olga.call("POST", retry(old["execution_id"]), {"graph": "current"})
    new = answer.json()
    ended = await people.olga.wait_end(new["execution_id"])

    assert answer.status_code == 201
    assert new == {
        "execution_id": new["execution_id"],
        "workflow_slug": slug,
        "status": "pending",
        "error_message": "",
        "error_code": None,
        "started_at": None,
        "completed_at": None,
        "total_tokens": 0,
        "total_cost_usd": 0.0,
        "llm_calls": 0,
        "retry_of": old["execution_id"],
    }
    assert ended["status"] == "completed"
    assert ended["final_output"] == {"output": "Waited 0 seconds"}
    assert ended["trigger_payload"] == old["trigger_payload"]
    assert ended["retry_of"] == old["execution_id"]
    started, first, *_ = await people.olga.events(new["execution_id"])
    assert started["type"] == "execution_started"
    assert first["data"]["node_id"] == "first"
    assert first["data"]["status"] == "success"
    assert (first["data"]["taken_over"], first["data"]["duration_ms"]) == (True, 0)
    log, before = ended["logs"][1], old["logs"][1]
    own = {name: log[name] for name in ("id", "timestamp", "duration_ms", "metadata")}
    assert log == before | own
    assert (own["duration_ms"], own["metadata"]) == (0, {"taken_over_from": old["execution_id"]})
    assert await people.olga.show(old["execution_id"]) == old


async def test_the_graph_is_the_old_one_unless_today_s_is_wanted(people: People, slug: str) -> None:
    """Without a body the same graph fails the same way, as often as one likes."""
    await build(people.olga, slug)
    old = await fail(people.olga, slug)
    await repair(people.olga, slug)

    for body in (None, {}, {"graph": "snapshot", "from_node": None}):
        answer = await people.olga.call("POST", retry(old["execution_id"]), body)
        ended = await people.olga.wait_end(answer.json()["execution_id"])
        assert (answer.status_code, ended["error_message"]) == (201, old["error_message"])


async def test_a_named_node_and_what_follows_run_again(people: People, slug: str) -> None:
    """The trigger stands for everything."""
    await build(people.olga, slug)
    old = await fail(people.olga, slug)

    for node in ("first", "start"):
        answer = await people.olga.post(retry(old["execution_id"]), {"from_node": node})
        await people.olga.wait_end(answer["execution_id"])
        events = await people.olga.events(answer["execution_id"])
        assert node_events(events, "first") == ["pending", "running", "success"]


async def test_models_are_not_asked_again(people: People, slug: str, provider: ModelServer) -> None:
    """What was said is used, and not billed a second time; the chat gets its reply once."""
    credential = await people.olga.add_model(provider.url)
    await people.olga.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
            "thinker": ("agent", {"system_prompt": "Think."}),
            "nap": ("wait", {"extra_config": {"duration": "soon"}}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ thinker.output }}"}}),
        },
        "chat_in -> thinker, thinker -> nap, nap -> say, model -> thinker : llm",
    )
    execution_id = await people.olga.chat(slug, "Why?")
    await (await provider.next_call()).say("Because.")
    await people.olga.wait_end(execution_id)
    await repair(people.olga, slug)

    answer = await people.olga.post(retry(execution_id), {"graph": "current"})
    ended = await people.olga.wait_end(answer["execution_id"])

    assert ended["final_output"] == {"output": "Because."}
    assert (ended["llm_calls"], ended["total_tokens"], ended["total_cost_usd"]) == (0, 0, 0.0)
    history = await people.olga.get(f"/workflows/{slug}/chat/history")
    said = [(turn["role"], turn["text"]) for turn in history["messages"]]
    assert said == [("user", "Why?"), ("assistant", "Because.")]


async def test_a_cancelled_execution_goes_on_where_it_was_stopped(
    people: People, slug: str
) -> None:
    """The wait that was cut off begins anew."""
    await build(people.olga, slug, duration=800)
    execution_id = await people.olga.run(slug)
    await people.olga.wait_for(execution_id, node_id="nap", status="waiting")
    await people.olga.post(f"/executions/{execution_id}/cancel/")
    await repair(people.olga, slug)

    answer = await people.olga.post(retry(execution_id), {"graph": "current"})
    ended = await people.olga.wait_end(answer["execution_id"])

    assert ended["status"] == "completed"
    assert ended["logs"][1]["metadata"] == {"taken_over_from": execution_id}


async def test_a_retry_of_a_retry_takes_over_from_both(people: People, slug: str) -> None:
    """The chain of executions is named link by link."""
    await build(people.olga, slug)
    old = await fail(people.olga, slug)
    second = (await people.olga.post(retry(old["execution_id"])))["execution_id"]
    await people.olga.wait_end(second)
    await repair(people.olga, slug)

    third = (await people.olga.post(retry(second), {"graph": "current"}))["execution_id"]
    ended = await people.olga.wait_end(third)

    assert (ended["status"], ended["retry_of"]) == ("completed", second)
    assert ended["logs"][1]["metadata"] == {"taken_over_from": second}


async def test_a_run_that_never_started_starts_with_today_s_graph(
    people: People, slug: str
) -> None:
    """An invalid graph is no graph to keep."""
    await people.olga.build(slug, {"start": ("trigger_manual", {})}, "")
    old = await fail(people.olga, slug)
    await people.olga.post(
        f"/workflows/{slug}/nodes/", {"node_id": "only", "component_type": "merge", "config": {}}
    )
    edge = {"source_node_id": "start", "target_node_id": "only"}
    await people.olga.post(f"/workflows/{slug}/edges/", edge)

    answer = await people.olga.post(retry(old["execution_id"]))

    assert (await people.olga.wait_end(answer["execution_id"]))["status"] == "completed"


async def test_what_cannot_be_retried(people: People, slug: str) -> None:
    """Completed, running, hidden, unknown, without its node or its workflow."""
    await build(people.olga, slug)
    old = (await fail(people.olga, slug))["execution_id"]
    await build_echo(people.olga, f"{slug}-echo")
    echoed = await people.olga.chat(f"{slug}-echo", "hi")
    await people.olga.wait_end(echoed)
    call, workflow = people.olga.call, f"/workflows/{slug}/"

    assert refusal(await call("POST", retry("nope"))) == NOT_FOUND
    assert refusal(await people.otto.call("POST", retry(old))) == NOT_FOUND
    assert refusal(await call("POST", retry(echoed))) == (
        409,
        "Cannot retry execution with status 'completed'.",
    )
    no_node = (404, "Node not found.")
    assert refusal(await call("POST", retry(old), {"from_node": "gone"})) == no_node
    assert (await call("POST", retry(old), {"graph": "other"})).status_code == 422
    assert (await people.anyone.call("POST", retry(old))).status_code == 401
    assert (await people.ada.call("POST", retry(old))).status_code == 201
    await call("DELETE", f"{workflow}nodes/start/")
    assert refusal(await call("POST", retry(old), {"graph": "current"})) == no_node
    assert (await call("POST", retry(old))).status_code == 201
    await call("PATCH", workflow, {"is_active": False})
    assert refusal(await call("POST", retry(old))) == (400, "Workflow is inactive.")
    await call("DELETE", workflow)
    assert refusal(await call("POST", retry(old))) == (404, "Workflow not found.")
