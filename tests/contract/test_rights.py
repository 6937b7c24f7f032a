"""Who may call what: every route with a parameter in its path, for every kind of caller.

Contract: README.md §9. The routes come from their declarations, so a new one is tested as soon as
it is declared; one that no rule covers fails. Olga owns what is asked for.
"""

import re
from typing import NamedTuple

import httpx2
import pytest
from sqlalchemy import insert, select

from pipelit.assembly.web import API_ROUTES
from pipelit.clock import Clock
from pipelit.services.api_keys import describe_key
from pipelit.store import schema
from pipelit.store.queries.keys import insert_key
from pipelit.web.routing import Route
from tests.kit.api import Api
from tests.kit.site import People, Site, people, site, slug, writing

__all__ = ["people", "site", "slug"]

pytestmark = pytest.mark.slow

ROUTES = [route for route in API_ROUTES if route.parameters]
IN_WORKFLOWS = [route for route in ROUTES if "slug" in route.parameters]
# Otto has nothing to do with Olga; an agent of the admin has none of the admin's powers.
STRANGERS = frozenset({"otto", "adas_agent"})
NORMAL = frozenset({"olga", "olgas_agent", *STRANGERS})
CALLERS = ("otto", "adas_agent", "olgas_agent", "olga", "ada")
NOT_YOURS = (403, "You do not have permission to modify this workflow.")
NOT_ADMIN = (403, "Admin access required.")
BOT = {"credential_type": "gateway", "detail": {"adapter_type": "telegram"}}
MODEL = {
    "credential_type": "llm",
    "detail": {
        "provider_type": "openai_compatible",
        "api_key": "sk-test-0123456789",
        "base_url": "http://127.0.0.1:9/v1",
    },
}
PASSWORD = "correct horse battery"


class Rule(NamedTuple):
    """What callers get on routes whose method and path match from the start; the first rules."""

    routes: str
    refused: frozenset[str]
    answer: tuple[int, str]


FREE = Rule("", frozenset(), (0, ""))
RULES = (
    Rule(
        "DELETE /users/agents/",
        STRANGERS,
        (403, "Only the creator or an admin can delete this agent user."),
    ),
    Rule("DELETE /users/me/keys/", frozenset(CALLERS) - {"olga"}, (404, "API key not found.")),
    Rule(r"\w+ /(users|system)/", NORMAL, NOT_ADMIN),
    Rule("POST /webhooks/", STRANGERS, (404, "Workflow '<slug>' not found")),
    Rule(r"\w+ /workflows/", STRANGERS, (404, "Workflow not found.")),
    Rule(r"\w+ /executions/", STRANGERS, (404, "Execution not found.")),
    Rule(r"\w+ /schedules/", STRANGERS, (404, "Scheduled job not found.")),
    Rule(
        r"(PATCH|DELETE) /credentials/|POST /credentials/[^/]+/(de)?activate",
        STRANGERS,
        (403, "Only the creator or an admin can modify this credential."),
    ),
    Rule(r"\w+ /workspaces/", STRANGERS, (404, "Workspace not found.")),
    FREE._replace(routes=r"\w+ /(credentials|epics|tasks)/"),
)
IF_PUBLIC = (
    FREE._replace(
        routes=r"GET |\w+ /webhooks/|POST .*/(execute|validate|chat)/$|DELETE .*/history"
    ),
    Rule("", STRANGERS, NOT_YOURS),
)


def rule_of(route: Route, rules: tuple[Rule, ...]) -> Rule:
    return next(rule for rule in rules if re.match(rule.routes, f"{route.method} {route.path}"))


@pytest.fixture(scope="module")
def agents(site: Site) -> dict[str, str]:
    """The agent users of Olga and of Ada: {who: key}."""
    made = {}
    with writing(site.server) as connection:
        users, now = schema.users, Clock().now()
        for creator in ("olga", "ada"):
            creator_id = connection.scalar(select(users.c.id).where(users.c.username == creator))
            row = {"kind": "agent", "created_by_id": creator_id, "created_at": now}
            statement = insert(users).values(username=f"{creator}s_agent", **row)
            agent_id = connection.execute(statement.returning(users.c.id)).scalar_one()
            made[f"{creator}s_agent"] = key = f"key-of-{creator}s-agent"
            insert_key(connection, agent_id, describe_key(key, name="test", created_at=now))
    return made


class World:
    """What Olga has, made as far as a route asks for it."""

    def __init__(self, people: People, agents: dict[str, str], site: Site, slug: str) -> None:
        self._site = site
        self._slug = slug
        self._count = 0
        self._olga = people.olga
        self._ada = people.ada
        self._callers = {
            "ada": people.ada,
            "olga": people.olga,
            "otto": people.otto,
            **{name: Api(people.anyone.http, key) for name, key in agents.items()},
        }

    async def call(self, name: str, route: Route, path: str) -> httpx2.Response:
        """Send a request that is right but for its caller."""
        bodies = [example.body for example in route.examples if example.body is not None]
        return await self._callers[name].call(route.method, path, bodies[0] if bodies else None)

    async def path_of(self, route: Route, *, is_public: bool = False) -> str:
        """Make new things and return the path of the route that names them."""
        self._count += 1
        values: dict[str, object] = {"path": "executions"}
        if {"slug", "execution_id", "job_id"} & route.parameters.keys():
            values |= await self._workflow(f"{self._slug}-{self._count}", is_public)
        if "execution_id" in route.parameters:
            run = await self._olga.run(str(values["slug"]))
            values["execution_id"] = (await self._olga.wait_end(run))["execution_id"]
        if "job_id" in route.parameters:
            job = {"name": "j", "workflow_id": values["id"], "interval_seconds": 86400}
            values["job_id"] = (await self._olga.post("/schedules/", job))["id"]
        if "credential_id" in route.parameters:
            is_bot = route.path.endswith("activate/")
            body = {"name": "c", **(BOT if is_bot else MODEL)}
            values["credential_id"] = (await self._olga.post("/credentials/", body))["id"]
        if {"epic_id", "task_id"} & route.parameters.keys():
            values["epic_id"] = epic = (await self._olga.post("/epics/", {"title": "E"}))["id"]
            task = await self._olga.post("/tasks/", {"title": "T", "epic_id": epic})
            values["task_id"] = task["id"]
        if "workspace_id" in route.parameters:
            body = {"name": f"w{self._slug[-80:]}-{self._count}"}
            values["workspace_id"] = (await self._olga.post("/workspaces/", body))["id"]
        if {"user_id", "key_id"} & route.parameters.keys():
            values |= await self._account(route)
        return re.sub(r"\{(\w+)[^}]*\}", lambda name: str(values[name[1]]), route.path)

    async def _workflow(self, slug: str, is_public: bool) -> dict[str, object]:
        workflow = await self._olga.build(
            slug,
            {
                "chat_in": ("trigger_chat", {}),
                "start": ("trigger_manual", {}),
                "hook": ("trigger_webhook", {}),
                "clock": ("trigger_schedule", {"extra_config": {"interval_seconds": 86400}}),
                "nap": ("wait", {"extra_config": {"duration": "soon"}}),
            },
            "chat_in -> nap, start -> nap, hook -> nap, clock -> nap",
            is_public=is_public,
        )
        await self._olga.post(f"/workflows/{slug}/nodes/clock/schedule/start")
        edges = await self._olga.get(f"/workflows/{slug}/edges/")
        return {"id": workflow["id"], "slug": slug, "node_id": "clock", "edge_id": edges[0]["id"]}

    async def _account(self, route: Route) -> dict[str, object]:
        name = f"{self._slug}-{self._count}"
        if "/me/" in route.path:
            return {"key_id": (await self._olga.post("/users/me/keys", {"name": "k"}))["id"]}
        if "/agents/" in route.path:
            with writing(self._site.server) as connection:
                olga = select(schema.users.c.id).where(schema.users.c.username == "olga")
                values = {"kind": "agent", "created_at": Clock().now()}
                creator = connection.scalar(olga)
                row = insert(schema.users).values(username=name, created_by_id=creator, **values)
                made = connection.execute(row.returning(schema.users.c.id))
                return {"user_id": made.scalar_one()}
        user = await self._ada.post("/users/", {"username": name, "password": PASSWORD})
        key = await self._ada.post(f"/users/{user['id']}/keys", {"name": "k"})
        return {"user_id": user["id"], "key_id": key["id"]}


@pytest.fixture
def world(people: People, agents: dict[str, str], site: Site, slug: str) -> World:
    """Olga and the others."""
    return World(people, agents, site, slug)


async def check(world: World, route: Route, rule: Rule, *, is_public: bool) -> None:
    """Call a route as everybody: first who is refused, so that all ask for the same thing."""
    path = await world.path_of(route, is_public=is_public)
    for name in sorted(CALLERS, key=lambda name: name not in rule.refused):
        answer = await world.call(name, route, path)
        if name in rule.refused:
            status, detail = rule.answer
            wanted = detail.replace("<slug>", path.rpartition("/")[2])
            assert (answer.status_code, answer.json()) == (status, {"detail": wanted}), name
        else:
            assert answer.status_code not in {401, 403, 404}, f"{name}: {answer.text}"
            if route.method == "DELETE" or route.path.endswith("/stop"):
                path = await world.path_of(route, is_public=is_public)


@pytest.mark.parametrize("route", ROUTES, ids=repr)
async def test_what_is_not_ones_own_is_refused_as_the_table_says(
    world: World, route: Route
) -> None:
    """404 where it is not visible, 403 where it is but may not be changed."""
    await check(world, route, rule_of(route, RULES), is_public=False)


@pytest.mark.parametrize("route", IN_WORKFLOWS, ids=repr)
async def test_a_public_workflow_is_read_and_run_by_everybody(world: World, route: Route) -> None:
    """And changed by its owner, the owner's agents and admins."""
    await check(world, route, rule_of(route, IF_PUBLIC), is_public=True)


@pytest.mark.parametrize("route", ROUTES, ids=repr)
async def test_without_a_key_nothing_is_told(people: People, route: Route) -> None:
    """401 comes before 404."""
    path = re.sub(r"\{\w+(:\w+)?\}", "1", route.path)

    answer = await people.anyone.call(route.method, path, {})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
