"""What agents use of the platform, and memory. Contract: node-types.md §8, §9."""

import json
import re
from typing import Any

from tests.kit.node_world import World, case
from tests.kit.ws_client import ws_client

WORKFLOW = "name: {name}\nsteps:\n  - {{id: say, type: reply_chat, message: hi}}"


def refused(error: str) -> dict[str, Any]:
    return {"success": False, "error": error}


@case
async def create_agent_user(world: World) -> None:
    async with world.nodes.agent({"x": ("create_agent_user", {})}) as talk:
        first = await talk.ask_json("create_agent_user", purpose="Test")
        second = await talk.ask_json("create_agent_user")
    username = f"agent_{world.nodes.slug}-1_a"

    assert first == {
        "success": True,
        "username": username,
        "api_key": first["api_key"],
        "api_base_url": world.site.url,
        "purpose": "Test",
        "already_existed": False,
    }
    assert second == {**first, "already_existed": True}
    page = await world.api.get(f"/executions/?workflow_slug={world.nodes.slug}-1")
    detail = await world.api.show(page["items"][0]["execution_id"])
    assert first["api_key"] not in json.dumps(detail)
    assert "****" in json.dumps(detail)
    await _account_of_another(world)


async def _account_of_another(world: World) -> None:
    """The name of a workflow that was somebody else's gives no key."""
    await world.api.call("DELETE", f"/workflows/{world.nodes.slug}-1/")
    other = type(world.nodes)(world.other, world.provider, world.nodes.slug)
    async with other.agent({"x": ("create_agent_user", {})}) as talk:
        stolen = await talk.fail_json("create_agent_user")

    assert stolen == refused(f"Username 'agent_{world.nodes.slug}-1_a' is already taken")


@case
async def platform_api(world: World) -> None:
    tools = {"x": ("platform_api", {}), "y": ("create_agent_user", {})}
    async with world.nodes.agent(tools) as talk:
        key = (await talk.ask_json("create_agent_user"))["api_key"]
        mine = await talk.ask_json(
            "platform_api", path="/api/v1/workflows/?limit=1000", api_key=key
        )
        made = await talk.ask_json(
            "platform_api", method="POST", path="/api/v1/epics/", body="{}", api_key=key
        )
        admin = await talk.ask_json("platform_api", path="/api/v1/users/", api_key=key)
        nobody = await talk.ask_json("platform_api", path="/api/v1/workflows/")
        path = await talk.fail_json("platform_api", path="//evil.example/")
        verb = await talk.fail_json("platform_api", method="PUT")

    assert (mine["status_code"], mine["success"]) == (200, True)
    assert f"{world.nodes.slug}-1" in {row["slug"] for row in mine["data"]["items"]}
    assert (made["status_code"], made["error"]) == (422, "HTTP 422")
    assert (admin["status_code"], admin["success"]) == (403, False)
    assert (nobody["status_code"], nobody["error"]) == (401, "HTTP 401")
    assert path == {"error": "path must start with '/'", "success": False}
    assert verb == {"error": "Unsupported method: PUT"}


@case
async def whoami(world: World) -> None:
    async with world.nodes.agent({"x": ("whoami", {})}) as talk:
        told = await talk.ask_json("whoami")
        node = f"/workflows/{world.nodes.slug}-1/nodes/a/"
        removed = await world.api.call("DELETE", node)
        gone = await talk.fail_json("whoami")

    assert told["identity"]["node_id"] == "a"
    assert told["self_modification"]["endpoint"] == f"/api/v1{node}"
    assert removed.status_code == 204
    assert gone["error"] == "This whoami tool is not connected to any agent node"


@case
async def get_totp_code(world: World) -> None:
    tools = {"x": ("get_totp_code", {}), "y": ("create_agent_user", {})}
    async with world.nodes.agent(tools) as talk:
        early = await talk.fail_json("get_totp_code")
        await talk.ask("create_agent_user")
        told = await talk.ask_json("get_totp_code")
        ada = await talk.fail_json("get_totp_code", username="ada")

    assert told["username"] == f"agent_{world.nodes.slug}-1_a"
    assert re.fullmatch(r"\d{6}", told["totp_code"])
    assert early == ada == refused("Agent user not found")


@case
async def epic_tools(world: World) -> None:
    async with world.nodes.agent({"x": ("epic_tools", {})}) as talk:
        made = await talk.ask_json("create_epic", title="Pipeline", budget_usd=0.5)
        epic_id = made["epic_id"]
        changed = await talk.ask_json("update_epic", epic_id=epic_id, status="active")
        shown = await talk.ask_json("epic_status", epic_id=epic_id)
        found = await talk.ask_json("search_epics", query="pipe")
        bad = await talk.fail_json("create_epic", title="x", priority=9)
        lost = await talk.fail_json("epic_status", epic_id="ep-0")

    assert made == {
        "success": True,
        "epic_id": epic_id,
        "title": "Pipeline",
        "status": "planning",
    }
    assert changed == {"success": True, "epic_id": epic_id, "status": "active"}
    assert (shown["budget_usd"], shown["tasks"]) == (0.5, [])
    assert epic_id in {row["epic_id"] for row in found["results"]}
    assert bad == refused("Priority must be between 1 and 5")
    assert lost == refused("Epic not found")


@case
async def task_tools(world: World) -> None:
    epic_id = (await world.api.post("/epics/", {"title": "E"}))["id"]
    async with world.nodes.agent({"x": ("task_tools", {})}) as talk:
        first = await talk.ask_json("create_task", epic_id=epic_id, title="A")
        second = await talk.ask_json(
            "create_task", epic_id=epic_id, title="B", depends_on=first["task_id"]
        )
        await talk.ask("update_task", task_id=first["task_id"], status="completed")
        listed = await talk.ask_json("list_tasks", epic_id=epic_id)
        ended = await talk.ask_json("cancel_task", task_id=second["task_id"], reason="no")
        bad = await talk.fail_json("create_task", epic_id=epic_id, title="C", depends_on="tk-0")
        lost = await talk.fail_json("cancel_task", task_id="tk-0")

    assert (first["status"], second["status"]) == ("pending", "blocked")
    assert [(t["title"], t["status"]) for t in listed["tasks"]] == [
        ("B", "pending"),
        ("A", "completed"),
    ]
    assert ended == {
        "success": True,
        "task_id": second["task_id"],
        "execution_cancelled": False,
    }
    assert bad == refused("One or more dependencies do not exist")
    assert lost == refused("Task not found")
    await _running_task(world)


@case
async def spawn_and_await(world: World) -> None:
    child = await world.nodes.build(
        {"say": ("reply_chat", {"message": "got {{ trigger.text }}"})}, trigger="trigger_workflow"
    )
    one, lost = {"workflow_slug": child, "input_text": "Trio"}, {"workflow_slug": "no-such"}
    async with world.nodes.agent({"x": ("spawn_and_await", {})}) as talk:
        single = await talk.ask("spawn_and_await", **one)
        several = await talk.ask_json("spawn_and_await", tasks=[{"workflow_slug": child}, one])
        nothing = await talk.fail("spawn_and_await", tasks=[])
        neither = await talk.fail("spawn_and_await")
        unnamed = await talk.fail("spawn_and_await", tasks=[{}])
        missing = await talk.fail("spawn_and_await", **lost)

    assert json.loads(single) == {"output": "got Trio"}
    assert several == [{"output": "got "}, {"output": "got Trio"}]
    assert nothing == "Error: tasks list cannot be empty"
    assert neither == "Error: give either workflow_slug or tasks"
    assert unnamed == "Error: Task 0 missing required field 'workflow_slug'"
    assert missing.endswith("Target workflow not found: 'no-such'")


async def _running_task(world: World) -> None:
    """It ends with its execution, and whoever listens hears of it."""
    epic_id = (await world.api.post("/epics/", {"title": "E"}))["id"]
    task = await world.api.post("/tasks/", {"epic_id": epic_id, "title": "A"})
    slug = await world.nodes.build({"n": ("wait", {"duration": 300})})
    execution = await world.api.run(slug)
    await world.api.wait_for(execution, node_id="n", status="waiting")
    link = {"execution_id": execution, "status": "running"}
    await world.api.call("PATCH", f"/tasks/{task['id']}/", link)
    async with ws_client(world.site.url, token=world.api.key) as socket:
        await socket.subscribe(f"epic:{epic_id}")
        async with world.nodes.agent({"x": ("task_tools", {})}) as talk:
            ended = await talk.ask_json("cancel_task", task_id=task["id"])
        heard = await socket.hear_until("task_updated", status="cancelled")

    assert ended["execution_cancelled"] is True
    assert (await world.api.show(execution))["status"] == "cancelled"
    assert heard[0]["data"]["id"] == task["id"]


@case
async def workflow_create(world: World) -> None:
    name = f"{world.nodes.slug}-made"
    async with world.nodes.agent({"x": ("workflow_create", {})}) as talk:
        made = await talk.ask_json("workflow_create", dsl=WORKFLOW.format(name=name), tags="t")
        bad = await talk.fail_json("workflow_create", dsl="name: x\nsteps: []")
    stored = await world.api.get(f"/workflows/{name}/")

    assert made == {
        "success": True,
        "workflow_id": stored["id"],
        "slug": name,
        "node_count": 2,
        "edge_count": 1,
        "mode": "created",
    }
    assert (stored["tags"], stored["is_public"]) == (["t"], False)
    assert bad == refused("`steps` must be a non-empty list")


@case
async def workflow_discover(world: World) -> None:
    tag = world.nodes.slug[-30:]
    slug = await world.nodes.build({}, tags=[tag])
    needs = json.dumps({"tags": [tag]})
    async with world.nodes.agent({"x": ("workflow_discover", {})}) as talk:
        found = await talk.ask_json("workflow_discover", requirements=needs, limit=1)
        bad = await talk.fail_json("workflow_discover", requirements="[]")
        broken = await talk.fail_json("workflow_discover", requirements="{")

    (best,) = found["matches"]
    assert (best["slug"], best["score"], best["recommendation"]) == (slug, 0.95, "reuse")
    assert bad == refused("requirements must be a JSON object")
    assert broken["error"].startswith("Invalid JSON: ")


@case
async def scheduler_tools(world: World) -> None:
    slug = await world.nodes.build({"say": ("reply_chat", {})})
    workflow_id = (await world.api.get(f"/workflows/{slug}/"))["id"]
    job = {"name": "hourly", "workflow_id": workflow_id, "interval_seconds": 3600}
    async with world.nodes.agent({"x": ("scheduler_tools", {})}) as talk:
        made = await talk.ask_json("create_schedule", **job)
        one = {"schedule_id": made["schedule_id"]}
        paused = await talk.ask_json("pause_schedule", **one)
        twice = await talk.fail_json("pause_schedule", **one)
        resumed = await talk.ask_json("resume_schedule", **one)
        listed = await talk.ask_json("list_schedules", workflow_id=workflow_id)
        stopped = await talk.ask_json("stop_schedule", **one)
        bad = await talk.fail_json("create_schedule", **{**job, "interval_seconds": 0})
        lost = await talk.fail_json("stop_schedule", **one)

    assert made == {"success": True, **one, "name": "hourly", "status": "active"}
    assert (paused["status"], resumed["status"]) == ("paused", "active")
    assert twice == refused("Cannot pause job with status 'paused'")
    assert [row["schedule_id"] for row in listed["results"]] == [made["schedule_id"]]
    assert stopped == {"success": True, **one, "deleted": True}
    assert bad == refused("interval_seconds must be >= 1")
    assert lost == refused("Schedule not found")


@case
async def system_health(world: World) -> None:
    async with world.nodes.agent({"x": ("system_health", {})}) as talk:
        told = await talk.ask_json("check_system_health")

    assert list(told) == ["timestamp", "summary", "checks", "issues"]
    assert told["checks"]["store"]["status"] == "ok"


# Memory


@case
async def memory_read(world: World) -> None:
    tools = {"r": ("memory_read", {}), "w": ("memory_write", {})}
    key = world.nodes.slug
    async with world.nodes.agent(tools) as talk:
        await talk.ask("remember", key=key, value="Ann")
        by_key = await talk.ask("recall", key=key)
        nothing = await talk.ask("recall", query="no such thing at all")
        missing = await talk.ask("recall", key="no such key at all")

    assert by_key == f"{key} = Ann"
    assert nothing == "No memories found for query: no such thing at all"
    assert missing == "No memory found for key: no such key at all"


@case
async def memory_write(world: World) -> None:
    key = world.nodes.slug
    async with world.nodes.agent({"w": ("memory_write", {"overwrite": False})}) as talk:
        first = await talk.ask("remember", key=key, value="Bern")
        again = await talk.ask("remember", key=key, value="Basel")
        empty = await talk.fail("remember", key="", value="x")
        kind = await talk.fail("remember", key=key, value="x", fact_type="rumour")

    assert first == f"Remembered: {key} = Bern (created)"
    assert again == f"Remembered: {key} = Basel (skipped)"
    assert empty == "Error: key is required"
    assert kind == "Error: unknown fact_type 'rumour'"
