"""What one user can do to another who shares the server. Contract: README.md §9."""

import json
from typing import Any

import pytest

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.people import refusal
from tests.kit.site import People, Site, build_echo, build_thinker
from tests.security.bystander import undisturbed
from tests.security.conftest import GATEWAY_TOKEN
from tests.security.lab import attack, build, error_of

pytestmark = pytest.mark.slow

NO_EXECUTION = (404, "Execution not found.")
NO_WORKFLOW = (404, "Workflow not found.")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "status/", None),
        ("GET", "events/", None),
        ("POST", "cancel/", None),
        ("POST", "retry/", {}),
        ("POST", "resume/", {"input": "yes"}),
    ],
    ids=["read", "status", "events", "cancel", "retry", "answer"],
)
async def test_a_guessed_execution_is_nobodys_to(
    people: People, slug: str, method: str, path: str, body: object
) -> None:
    """The same answer as for an id that names nothing."""
    await build_echo(people.olga, slug)
    run = await people.olga.run(slug)
    await people.olga.wait_end(run)

    real = await people.otto.call(method, f"/executions/{run}/{path}", body)
    made_up = await people.otto.call(method, f"/executions/{'0' * 36}/{path}", body)

    assert refusal(real) == refusal(made_up) == NO_EXECUTION
    assert (await people.olga.show(run))["status"] == "completed"


async def test_a_batch_deletes_only_ones_own(people: People, slug: str) -> None:
    """What is somebody else's is passed over silently."""
    await build_echo(people.olga, slug)
    run = await people.olga.run(slug)
    await people.olga.wait_end(run)

    await people.otto.call("POST", "/executions/batch-delete/", {"execution_ids": [run]})
    await people.otto.call("POST", "/workflows/batch-delete/", {"slugs": [slug]})

    assert (await people.olga.show(run))["status"] == "completed"


async def test_an_idempotency_key_of_another_replays_nothing(people: People, slug: str) -> None:
    """Keys are the caller's: whoever guesses one starts a run of the own."""
    await build_echo(people.olga, slug, is_public=True)
    path = f"/workflows/{slug}/execute/"
    first = await people.olga.call("POST", path, {"text": "a"}, idempotency_key="k")

    other = await people.otto.call("POST", path, {"text": "a"}, idempotency_key="k")

    assert "idempotent-replayed" not in other.headers
    assert first.json()["execution_id"] != other.json()["execution_id"]


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/workflows/", {"error_handler_workflow_id": "ID"}, NO_WORKFLOW),
        ("/schedules/", {"workflow_id": "ID", "interval_seconds": 60}, NO_WORKFLOW),
        ("/epics/", {"title": "x", "workflow_id": "ID"}, NO_WORKFLOW),
    ],
    ids=["error_handler", "schedule", "epic"],
)
async def test_a_reference_reveals_nothing(
    people: People, slug: str, path: str, body: dict[str, Any], answer: tuple[int, str]
) -> None:
    """What one may not see cannot be named."""
    secret = await people.olga.post("/workflows/", {"name": slug, "slug": slug})
    named = {key: secret["id"] if value == "ID" else value for key, value in body.items()}

    refused = await people.otto.call("POST", path, {"name": "x", "slug": f"{slug}-2", **named})

    assert refusal(refused) == answer


async def test_a_workflow_is_no_way_into_anothers(people: People, slug: str) -> None:
    """A private workflow is called by those of its owner only."""
    await build_echo(people.olga, slug)
    await build(people.otto, f"{slug}-2", "workflow", target_workflow=slug)

    detail = await attack(people.otto, f"{slug}-2")

    assert error_of(detail) == "ConfigError"
    assert (await people.olga.get(f"/executions/?workflow_slug={slug}&limit=0"))["total"] == 0


async def use_tool(
    api: Api, slug: str, provider: ModelServer, tool: str, name: str, /, **arguments: object
) -> str:
    """Have an agent call a function of a tool; return what the model is told."""
    credential = await api.add_model(provider.url)
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "start": ("trigger_manual", {}),
        "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
        "tool": (tool, {}),
        "agent": ("agent", {}),
    }
    edges = "start -> agent, model -> agent : llm, tool -> agent : tool"
    await api.build(slug, nodes, edges)
    run = await api.run(slug)
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    await (await provider.next_call()).stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ]
    )
    second = await provider.next_call()
    await second.say("Done.")
    await api.wait_end(run)
    return str(second.body["messages"][-1]["content"])


async def test_an_agent_spawns_no_workflow_of_others(
    people: People, slug: str, provider: ModelServer
) -> None:
    """However it is talked into it."""
    await build_echo(people.olga, f"{slug}-2")

    told = await use_tool(
        people.otto,
        slug,
        provider,
        "spawn_and_await",
        "spawn_and_await",
        workflow_slug=f"{slug}-2",
    )

    assert f"Not allowed to call workflow '{slug}-2'" in told


async def test_an_agent_schedules_no_workflow_of_others(
    people: People, slug: str, provider: ModelServer
) -> None:
    """It acts as the owner of its workflow, never as an admin."""
    made = await people.olga.post("/workflows/", {"name": slug, "slug": f"{slug}-2"})

    told = await use_tool(
        people.ada,
        slug,
        provider,
        "scheduler_tools",
        "create_schedule",
        name="x",
        workflow_id=made["id"],
        interval_seconds=1,
    )

    assert f"Workflow {made['id']} not found" in told


async def test_an_agent_stops_no_schedule_of_others(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Not even by its id."""
    await build_echo(people.olga, f"{slug}-2")
    workflow = await people.olga.get(f"/workflows/{slug}-2/")
    body = {"name": "x", "workflow_id": workflow["id"], "interval_seconds": 86400}
    job = await people.olga.post("/schedules/", body)

    told = await use_tool(
        people.otto, slug, provider, "scheduler_tools", "stop_schedule", schedule_id=job["id"]
    )

    assert "Schedule not found" in told
    assert (await people.olga.get(f"/schedules/{job['id']}/"))["status"] == "active"


async def test_an_agent_gets_no_code_of_a_human(
    people: People, slug: str, provider: ModelServer
) -> None:
    """One-time codes are those of its owner's agents."""
    told = await use_tool(
        people.otto, slug, provider, "get_totp_code", "get_totp_code", username="ada"
    )

    assert "Agent user not found" in told


@pytest.mark.parametrize("path", ["//evil.example/", "/../x", "http://evil.example/", "/%2e%2e/x"])
async def test_an_agent_calls_no_other_server(
    people: People, slug: str, provider: ModelServer, path: str
) -> None:
    """`platform_api` has one host, whatever the path."""
    told = await use_tool(
        people.otto, slug[:80] + str(len(path)), provider, "platform_api", "platform_api", path=path
    )

    assert '"success": false' in told
    assert "path must" in told


async def test_a_credential_sent_elsewhere_loses_its_key(
    people: People, provider: ModelServer
) -> None:
    """An admin who points another's credential at an own server does not get the key."""
    credential = await people.olga.add_model("http://127.0.0.1:9/v1")
    path = f"/credentials/{credential}/"

    await people.ada.call("PATCH", path, {"detail": {"base_url": provider.url}})
    await people.ada.post(f"{path}test/")

    assert (await people.ada.get(path))["detail"]["api_key"] == ""
    assert not any("sk-test" in str(request.headers) for request in provider.requests)
    assert (
        await people.otto.call("PATCH", path, {"detail": {"base_url": provider.url}})
    ).status_code == 403


async def test_a_key_of_a_provider_is_in_nothing_that_is_shown(
    people: People, site: Site, slug: str, provider: ModelServer
) -> None:
    """Not when the provider sends it back, in an error least of all."""
    await build_thinker(people.olga, slug, provider)
    run = await people.olga.run(slug)
    call = await provider.next_call()
    key = call.headers["authorization"].removeprefix("Bearer ")
    await call.respond(401, {"error": {"message": f"Incorrect API key provided: {key}"}})

    detail = await people.olga.wait_end(run)

    shown = json.dumps([detail, await people.olga.events(run)])
    assert key not in shown
    assert key not in site.server.log.read_text()


@pytest.mark.parametrize("token", ["", "x", "olga-s-key", GATEWAY_TOKEN[:-1], f"{GATEWAY_TOKEN} x"])
async def test_nobody_but_the_gateway_speaks_for_others(
    people: People, slug: str, token: str
) -> None:
    """An API key is no token of the gateway, and what begins like it is not it."""
    body = {
        "route": {"workflow_slug": slug, "trigger_node_id": "x"},
        "credential_id": "c",
        "source": {"protocol": "x", "chat_id": "1", "from": {"id": "ada"}},
        "text": "hi",
        "timestamp": "now",
    }
    answer = await Api(people.anyone.http, token).call("POST", "/inbound", body)

    assert refusal(answer) == (401, "Invalid gateway token")


async def test_a_flood_of_runs_leaves_room_for_others(
    people: People, bystander: Api, slug: str
) -> None:
    """A hundred runs that wait hold nobody up."""
    await build(people.olga, slug, "wait", duration=3600)

    async with undisturbed(bystander) as rounds:
        runs = [await people.olga.run(slug) for _ in range(100)]
        await rounds.more(1)
        for run in runs:
            await people.olga.call("POST", f"/executions/{run}/cancel/")
