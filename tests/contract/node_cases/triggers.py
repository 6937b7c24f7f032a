"""Triggers: what starts a run, and what it brings. Contract: node-types.md §4."""

from tests.kit.api import Api
from tests.kit.node_world import GATEWAY_TOKEN, World, case


@case
async def trigger_chat(world: World) -> None:
    slug = await world.nodes.build({"say": ("reply_chat", {"message": "{{ trigger.text }}"})})
    missing = await world.api.call("POST", f"/workflows/{slug}/chat/", {"text": "Hi"})
    chat = await world.nodes.build(
        {"say": ("reply_chat", {"message": "{{ trigger.text }} {{ t.files | tojson }}"})},
        trigger="trigger_chat",
    )
    detail = await world.api.wait_end(await world.api.chat(chat, "Hi"))

    assert (missing.status_code, missing.json()) == (404, {"detail": "No chat trigger found."})
    assert detail["final_output"] == {"output": "Hi []"}


@case
async def trigger_telegram(world: World) -> None:
    slug = await world.nodes.build(
        {"say": ("reply_chat", {"message": "{{ trigger.chat_id + 1 }}"})},
        trigger="trigger_telegram",
    )
    sender = Api(world.api.http, GATEWAY_TOKEN)
    body = {
        "route": {"workflow_slug": slug, "trigger_node_id": "t"},
        "credential_id": slug,
        "source": {"protocol": "telegram", "chat_id": "99120", "from": {"id": "1"}},
        "text": "hi",
        "timestamp": "2026-02-03T15:00:00Z",
    }
    lost = {**body, "route": {"workflow_slug": slug, "trigger_node_id": "x"}}
    refused = await sender.call("POST", "/inbound", lost)
    started = await sender.post("/inbound", body)

    assert (refused.status_code, refused.json()) == (404, {"detail": "Trigger node not found"})
    detail = await world.api.wait_end(started["execution_id"])
    assert detail["final_output"] == {"output": "99121"}


@case
async def trigger_manual(world: World) -> None:
    slug = await world.nodes.build({"say": ("reply_chat", {"message": "{{ t.payload.text }}"})})
    wrong = {"text": "", "trigger_node_id": "say"}
    refused = await world.api.call("POST", f"/workflows/{slug}/execute/", wrong)
    detail = await world.api.wait_end(await world.api.run(slug, text="now"))

    assert (refused.status_code, refused.json()["detail"]) == (
        404,
        "Manual trigger node not found",
    )
    assert detail["final_output"] == {"output": "now"}


@case
async def trigger_schedule(world: World) -> None:
    text = "{{ t.payload.scope }} {{ trigger.repeat_number }}"
    slug = await world.nodes.build(
        {"say": ("reply_chat", {"message": text})}, trigger="trigger_schedule"
    )
    node = f"/workflows/{slug}/nodes/t/"
    extra = {"interval_seconds": 0}
    await world.api.call("PATCH", node, {"config": {"extra_config": extra}})
    refused = await world.api.call("POST", f"{node}schedule/start/")
    extra = {"interval_seconds": 1, "total_repeats": 1, "trigger_payload": {"scope": "eu"}}
    await world.api.call("PATCH", node, {"config": {"extra_config": extra}})
    await world.api.post(f"{node}schedule/start/")
    detail = await world.started_by(slug)

    assert refused.json()["detail"] == {
        "validation_errors": ["extra_config.interval_seconds: must be >= 1"]
    }
    assert detail["final_output"] == {"output": "eu 0"}


@case
async def trigger_workflow(world: World) -> None:
    """The handler of another workflow's failures may start so, too."""
    text = "{{ trigger.payload.error.message }}"
    slug = await world.nodes.build(
        {"say": ("reply_chat", {"message": text})}, trigger="trigger_workflow"
    )
    handler = (await world.api.get(f"/workflows/{slug}/"))["id"]
    failing = await world.nodes.build(
        {"bad": ("calculator", {"expression": "1/0"})}, error_handler_workflow_id=handler
    )
    await world.api.wait_end(await world.api.run(failing))
    detail = await world.started_by(slug)

    assert detail["final_output"] == {"output": "division by zero"}


@case
async def trigger_error(world: World) -> None:
    told = "{{ trigger.error.source_node_id }}: {{ trigger.error.message }}"
    slug = await world.nodes.build(
        {
            "bad": ("calculator", {"expression": "1/0"}),
            "oops": ("trigger_error", {}),
            "say": ("reply_chat", {"message": told}),
        },
        "t -> bad, oops -> say",
    )
    await world.api.wait_end(await world.api.run(slug))
    detail = await world.started_by(slug, count=2)

    assert detail["final_output"] == {"output": "bad: division by zero"}


@case
async def trigger_webhook(world: World) -> None:
    text = "{{ input.event }} {{ t.query.a }} {{ 'authorization' in t.headers }}"
    slug = await world.nodes.build(
        {"say": ("reply_chat", {"message": text})}, trigger="trigger_webhook"
    )
    nowhere = await world.api.call("POST", "/webhooks/no-such-workflow", {})
    answer = await world.api.call("POST", f"/webhooks/{slug}?a=1", {"event": "paid"})
    detail = await world.started_by(slug)

    assert nowhere.status_code == 404
    assert answer.status_code < 300
    assert detail["final_output"] == {"output": "paid 1 False"}
