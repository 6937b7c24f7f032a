"""Every row of the checklist once, with a socket that hears what each call tells.

Contract: README.md §10, §11, websocket.md. What an endpoint does beyond its success is in the test
of its section; that its answer is as declared, the client checks.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import insert

from pipelit.clock import Clock
from pipelit.store import schema
from tests.kit.api import http_client
from tests.kit.gateway import gateway_server
from tests.kit.model_server import ModelServer, model_server
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import writing
from tests.kit.tour import Tour
from tests.kit.ws_client import ws_client

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
GATEWAY_TOKEN = "inbound-token"
RUN = "execution_started node_status node_status node_status"
"""Of a node: pending, running, success; or failed, or waiting."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server without users, beside a gateway."""
    async with gateway_server() as gateway:
        environ = {"GATEWAY_URL": gateway.url, "GATEWAY_INBOUND_TOKEN": GATEWAY_TOKEN}
        running = ServerProcess(tmp_path, free_port(), environ)
        async with running.run():
            yield running


@pytest.fixture
async def provider() -> AsyncIterator[ModelServer]:
    """A model provider."""
    async with model_server() as running:
        yield running


async def test_every_endpoint_answers_and_tells_what_it_promises(
    server: ServerProcess, provider: ModelServer
) -> None:
    """A row of the checklist that nobody calls fails this test, and so does an unheard event."""
    async with http_client(server.url) as http:
        tour = Tour(http)
        await visit_auth(tour)
        async with ws_client(server.url, token=tour.keys["ada"]) as socket:
            tour.called.add("WS /ws/?token=")
            tour.socket = socket
            for channel in ("workflow:tour", "workflow:trip"):
                await socket.subscribe(channel)
            await visit_root(tour)
            await visit_credentials(tour, provider)
            await visit_workflows(tour)
            await visit_canvas(tour)
            await visit_executions(tour)
            await visit_entrances(tour)
            await visit_schedules(tour)
            await visit_epics_and_tasks(tour)
            await visit_memories(tour)
            await visit_users(tour, server)
            await visit_settings_and_workspaces(tour)
            await visit_system(tour)
            await leave(tour)

    assert tour.left_out() == set()
    # Nobody knows the id of an epic, and so its channel, before it is there.
    assert tour.unheard("Canvas", "Epic") == {"epic_created"}


async def visit_auth(tour: Tour) -> None:
    assert (await tour.call("GET /auth/setup-status/"))["needs_setup"]
    ada = {"username": "ada", "password": PASSWORD}
    await tour.call("POST /auth/setup/", ada)
    tour.keys["ada"] = (await tour.call("POST /auth/token/", ada))["key"]
    await tour.call("GET /auth/me/")
    await tour.call("GET /auth/mfa/status/")
    app = pyotp.TOTP((await tour.call("POST /auth/mfa/setup/"))["secret"])
    now = Clock().now()
    await tour.call("POST /auth/mfa/verify/", {"code": app.at(now, counter_offset=-1)})
    await tour.call("POST /auth/token/", ada)
    await tour.call("POST /auth/mfa/login-verify/", {"username": "ada", "code": app.at(now)})
    await tour.call("POST /auth/mfa/disable/", {"code": app.at(now, counter_offset=1)})
    await tour.call("POST /auth/mfa/reset/")


async def visit_root(tour: Tour) -> None:
    for row in ("GET /health", "GET /ready", "GET /metrics", "GET /openapi.json", "GET /docs"):
        await tour.call(row)


async def visit_credentials(tour: Tour, provider: ModelServer) -> None:
    detail = {
        "provider_type": "openai_compatible",
        "api_key": "sk-test-0123456789",
        "base_url": provider.url,
    }
    body = {"name": "model", "credential_type": "llm", "detail": detail}
    model = (await tour.call("POST /credentials/", body))["id"]
    bot = {"name": "bot", "credential_type": "gateway", "detail": {"adapter_type": "telegram"}}
    bot_id = (await tour.call("POST /credentials/", bot))["id"]
    await tour.call("GET /credentials/")
    await tour.call("GET /credentials/{credential_id}/", credential_id=model)
    await tour.call("PATCH /credentials/{credential_id}/", {"name": "llm"}, credential_id=model)
    await tour.call("GET /credentials/{credential_id}/models/", credential_id=model)
    await tour.call("POST /credentials/{credential_id}/activate/", credential_id=bot_id)
    await tour.call("POST /credentials/{credential_id}/deactivate/", credential_id=bot_id)
    await tour.call("DELETE /credentials/{credential_id}/", credential_id=bot_id)
    await tour.call("POST /credentials/{credential_id}/test/", credential_id=model)
    await tour.call("POST /credentials/batch-delete/", {"ids": [model]})


async def visit_workflows(tour: Tour) -> None:
    created = await tour.call("POST /workflows/", {"name": "Trip", "slug": "trip"})
    assert created["slug"] == "trip"
    await tour.call("GET /workflows/")
    await tour.call("GET /workflows/node-types/")
    await tour.call("POST /workflows/validate-dsl/", {"yaml_str": "name: x"})
    path = {"slug": "trip"}
    row = "PATCH /workflows/{slug}/"
    await tour.call(row, {"slug": "tour"}, **path, tells="workflow_updated workflow_updated")
    await tour.call("GET /workflows/{slug}/", slug="tour")
    await tour.call("POST /workflows/{slug}/validate/", slug="tour")
    await tour.call("POST /workflows/", {"name": "Trip", "slug": "trip"})
    await tour.call("DELETE /workflows/{slug}/", **path, tells="workflow_deleted")


async def visit_canvas(tour: Tour) -> None:
    async def add(node_id: str, component_type: str, **extra: Any) -> None:
        config = {"extra_config": extra}
        body = {"node_id": node_id, "component_type": component_type, "config": config}
        await tour.call("POST /workflows/{slug}/nodes/", body, slug="tour", tells="node_created")

    async def join(source: str, target: str) -> Any:
        body = {"source_node_id": source, "target_node_id": target}
        row = "POST /workflows/{slug}/edges/"
        return await tour.call(row, body, slug="tour", tells="edge_created")

    await add("chat_in", "trigger_chat")
    await add("start", "trigger_manual")
    await add("hook", "trigger_webhook")
    await add("bot_in", "trigger_telegram")
    await add("say", "reply_chat", message="{{ trigger.text }}")
    await add("clock", "trigger_schedule", interval_seconds=86400)
    for trigger in ("chat_in", "start", "hook", "bot_in"):
        edge = await join(trigger, "say")
    here = {"slug": "tour", "edge_id": edge["id"]}
    await tour.call("GET /workflows/{slug}/edges/", slug="tour")
    row = "PATCH /workflows/{slug}/edges/{edge_id}/"
    await tour.call(row, {"priority": 1}, **here, tells="edge_updated")
    await tour.call("GET /workflows/{slug}/edges/{edge_id}/", **here)
    await tour.call("DELETE /workflows/{slug}/edges/{edge_id}/", **here, tells="edge_deleted")
    await join("bot_in", "say")
    await join("clock", "say")
    await visit_nodes(tour)


async def visit_nodes(tour: Tour) -> None:
    here = {"slug": "tour", "node_id": "clock"}
    await tour.call("GET /workflows/{slug}/nodes/", slug="tour")
    await tour.call("GET /workflows/{slug}/nodes/{node_id}/", **here)
    row = "PATCH /workflows/{slug}/nodes/{node_id}/"
    await tour.call(row, {"label": "Daily"}, **here, tells="node_updated")
    for action in ("start", "pause", "stop"):
        row = f"POST /workflows/{{slug}}/nodes/{{node_id}}/schedule/{action}"
        await tour.call(row, **here, tells="node_updated")
    row = "DELETE /workflows/{slug}/nodes/{node_id}/"
    await tour.call(row, **here, tells="edge_deleted node_deleted")


async def visit_executions(tour: Tour) -> None:
    here = {"slug": "tour"}
    done = RUN + " execution_completed"
    run = await tour.call("POST /workflows/{slug}/execute/", {"text": "hi"}, **here, tells=done)
    path = {"execution_id": run["execution_id"]}
    await tour.call("GET /executions/")
    await tour.call("GET /executions/{execution_id}/", **path)
    await tour.call("GET /executions/{execution_id}/status/", **path)
    await tour.call("GET /executions/{execution_id}/events/", **path)
    await tour.call("POST /executions/{execution_id}/cancel/", **path)

    node = "PATCH /workflows/{slug}/nodes/{node_id}/"
    asking = {"component_type": "human_confirmation"}
    await tour.call(node, asking, **here, node_id="say", tells="node_updated")
    asked = "execution_started node_status node_status execution_interrupted"
    run = await tour.call("POST /workflows/{slug}/execute/", **here, tells=asked)
    path = {"execution_id": run["execution_id"]}
    answered = "node_status node_status execution_completed"
    await tour.call(
        "POST /executions/{execution_id}/resume/", {"input": "yes"}, **path, tells=answered
    )

    nap = {"extra_config": {"duration": "soon"}}
    failing = {"component_type": "wait", "config": nap, "interrupt_before": False}
    await tour.call(node, failing, **here, node_id="say", tells="node_updated")
    failed = RUN + " execution_failed"
    run = await tour.call("POST /workflows/{slug}/execute/", **here, tells=failed)
    path = {"execution_id": run["execution_id"]}
    await tour.call("POST /executions/{execution_id}/retry/", **path, tells=failed)
    await tour.call("POST /executions/batch-delete/", {"execution_ids": [run["execution_id"]]})


async def visit_entrances(tour: Tour) -> None:
    here, done = {"slug": "tour"}, RUN + " execution_completed"
    saying = {"component_type": "reply_chat", "config": {"extra_config": {"message": "hello"}}}
    row = "PATCH /workflows/{slug}/nodes/{node_id}/"
    await tour.call(row, saying, **here, node_id="say", tells="node_updated")
    await tour.call("POST /workflows/{slug}/chat/", {"text": "hi"}, **here, tells=done)
    await tour.call("GET /workflows/{slug}/chat/history", **here)
    await tour.call("DELETE /workflows/{slug}/chat/history", **here)
    await tour.call("POST /webhooks/{slug}", {"a": 1}, **here, tells=done)
    message = {
        "route": {"workflow_slug": "tour", "trigger_node_id": "bot_in"},
        "credential_id": "bot",
        "source": {"protocol": "telegram", "chat_id": "5512"},
        "text": "hi",
        "timestamp": "2026-02-03T15:00:00Z",
    }
    tour.keys["gateway"] = GATEWAY_TOKEN
    await tour.call("POST /inbound", message, by="gateway", tells=done)


async def visit_schedules(tour: Tour) -> None:
    workflow = await tour.call("GET /workflows/{slug}/", slug="tour")
    body = {"name": "daily", "workflow_id": workflow["id"], "interval_seconds": 86400}
    job = (await tour.call("POST /schedules/", body))["id"]
    await tour.call("GET /schedules/")
    await tour.call("GET /schedules/{job_id}/", job_id=job)
    await tour.call("PATCH /schedules/{job_id}/", {"name": "nightly"}, job_id=job)
    await tour.call("GET /schedules/{job_id}/preview/", job_id=job)
    await tour.call("POST /schedules/{job_id}/pause/", job_id=job)
    await tour.call("POST /schedules/{job_id}/resume/", job_id=job)
    await tour.call("DELETE /schedules/{job_id}/", job_id=job)
    await tour.call("POST /schedules/batch-delete/", {"schedule_ids": [job]})


async def visit_epics_and_tasks(tour: Tour) -> None:
    assert tour.socket is not None
    epics = [(await tour.call("POST /epics/", {"title": "E"}))["id"] for _ in range(2)]
    for epic_id in epics:
        await tour.socket.subscribe(f"epic:{epic_id}")
    here = {"epic_id": epics[0]}
    await tour.call("GET /epics/")
    await tour.call("GET /epics/{epic_id}/", **here)
    await tour.call("PATCH /epics/{epic_id}/", {"priority": 1}, **here, tells="epic_updated")

    async def add(**more: object) -> str:
        body = {"epic_id": epics[0], "title": "T", **more}
        return str((await tour.call("POST /tasks/", body, tells="task_created"))["id"])

    first = await add()
    second = await add(depends_on=[first])
    third = await add(depends_on=[second])
    await tour.call("GET /tasks/")
    await tour.call("GET /tasks/{task_id}/", task_id=first)
    await tour.call("GET /epics/{epic_id}/tasks/", **here)
    row, done = "PATCH /tasks/{task_id}/", {"status": "completed"}
    await tour.call(row, done, task_id=first, tells="task_updated task_updated")
    row = "DELETE /tasks/{task_id}/"
    await tour.call(row, task_id=second, tells="task_updated task_deleted")
    row = "POST /tasks/batch-delete/"
    await tour.call(row, {"task_ids": [third, first]}, tells="tasks_deleted")
    await tour.call("DELETE /epics/{epic_id}/", **here, tells="epic_deleted")
    row = "POST /epics/batch-delete/"
    await tour.call(row, {"epic_ids": [epics[1]]}, tells="epic_deleted")


async def visit_memories(tour: Tour) -> None:
    for kind in ("facts", "episodes", "procedures", "users", "checkpoints"):
        await tour.call(f"GET /memories/{kind}/")
        body = {"thread_ids": ["1:1"]} if kind == "checkpoints" else {"ids": ["nobody"]}
        await tour.call(f"POST /memories/{kind}/batch-delete/", body)


async def visit_users(tour: Tour, server: ServerProcess) -> None:
    await tour.call("GET /users/me")
    await tour.call("PATCH /users/me", {"first_name": "Ada"})
    key = (await tour.call("POST /users/me/keys", {"name": "ci"}))["id"]
    await tour.call("GET /users/me/keys")
    await tour.call("DELETE /users/me/keys/{key_id}", key_id=key)
    bob = (await tour.call("POST /users/", {"username": "bob", "password": PASSWORD}))["id"]
    await tour.call("GET /users/")
    await tour.call("GET /users/{user_id}", user_id=bob)
    await tour.call("PATCH /users/{user_id}", {"last_name": "B"}, user_id=bob)
    key = (await tour.call("POST /users/{user_id}/keys", {"name": "ci"}, user_id=bob))["id"]
    await tour.call("GET /users/{user_id}/keys", user_id=bob)
    await tour.call("DELETE /users/{user_id}/keys/{key_id}", user_id=bob, key_id=key)
    await tour.call("DELETE /users/{user_id}", user_id=bob)
    with writing(server) as connection:
        agent = {"username": "agent", "kind": "agent", "created_at": Clock().now()}
        made = insert(schema.users).values(**agent).returning(schema.users.c.id)
        agent_id = connection.execute(made).scalar_one()
    await tour.call("GET /users/agents/")
    await tour.call("DELETE /users/agents/{user_id}/", user_id=agent_id)
    await tour.call("POST /users/agents/batch-delete/", {"ids": [agent_id]})


async def visit_settings_and_workspaces(tour: Tour) -> None:
    await tour.call("GET /settings/")
    await tour.call("PATCH /settings/", {"log_level": "INFO"})
    await tour.call("POST /settings/recheck-environment/")
    here = {"workspace_id": (await tour.call("POST /workspaces/", {"name": "box"}))["id"]}
    await tour.call("GET /workspaces/")
    await tour.call("GET /workspaces/{workspace_id}/", **here)
    await tour.call("PATCH /workspaces/{workspace_id}/", {"env_vars": []}, **here)
    await tour.call("POST /workspaces/{workspace_id}/reset/", **here)
    await tour.call("POST /workspaces/{workspace_id}/reset-rootfs/", **here)
    await tour.call("DELETE /workspaces/{workspace_id}/", **here)
    await tour.call("POST /workspaces/batch-delete/", {"ids": list(here.values())})


async def visit_system(tour: Tour) -> None:
    await tour.call("GET /system/actors/")
    await tour.call("GET /system/actors/{path}", path="executions")
    await tour.call("GET /system/supervision/")
    await tour.call("GET /system/audit/")
    await tour.call("GET /system/info/")


async def leave(tour: Tour) -> None:
    await tour.call("POST /workflows/batch-delete/", {"slugs": ["tour"]}, tells="workflow_deleted")
