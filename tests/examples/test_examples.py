"""Every example does what its header says: made from its file, run, and seen from outside.

The addresses of the examples are made up; here a server of this machine stands for all of them,
with the first word of each host as the first part of the path.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from pipelit.cli.client import Client, Target
from pipelit.cli.create import Made, create_workflow
from pipelit.cli.export import export_workflow
from pipelit.llm.scripted import Ask, Call, Move, Say, Script, demo_script, serve_scripted
from tests.engine.test_dsl import EXAMPLE_A, EXAMPLE_B
from tests.kit.api import PATIENCE, Api, http_client
from tests.kit.http_server import Answer, LocalServer, Seen, serve
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import Site, run_site

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
HOST = re.compile(r"https://(\w+)\.example\.(?:com|org)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server that may reach this machine."""
    environ = {"PIPELIT_EGRESS_ALLOW": "127.0.0.1/32"}
    server = ServerProcess(tmp_path_factory.mktemp("examples"), free_port(), environ)
    with run_site(server) as running:
        yield running


class World:
    """The outside of one test: what answers, what was asked of it, and the caller."""

    def __init__(self, api: Api, web: LocalServer, client: Client) -> None:
        self.api, self.web, self.client = api, web, client
        self.answers: dict[str, Answer | Iterator[Answer]] = {}

    async def make(self, name: str, *changes: tuple[str, str]) -> Made:
        """Make the workflow of an example, with the addresses of this test."""
        return await self.make_of((EXAMPLES / name).read_text(), *changes)

    async def make_of(self, text: str, *changes: tuple[str, str]) -> Made:
        """Make a workflow of a document, with the addresses of this test."""
        text = HOST.sub(rf"{self.web.url}/\1", text)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return await create_workflow(self.client, text)

    def requests(self, method: str = "POST") -> list[tuple[str, Any]]:
        """Return path and JSON body of every request that came in."""
        return [
            (seen.target, json.loads(seen.body) if seen.body else None)
            for seen in self.web.seen
            if seen.method == method
        ]

    def answer(self, seen: Seen) -> Answer:
        found = self.answers.get(seen.target.partition("?")[0], Answer(404))
        return found if isinstance(found, Answer) else next(found)


def as_json(body: object, status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(body).encode())


@pytest.fixture
async def world(site: Site) -> AsyncIterator[World]:
    async with open_world(site, demo_script) as world:
        yield world


@asynccontextmanager
async def open_world(site: Site, script: Script) -> AsyncIterator[World]:
    """Serve a scripted model and the addresses of the examples."""
    answers: list[World] = []
    async with (
        http_client(site.url) as http,
        serve(lambda seen: answers[0].answer(seen)) as web,
        Client.open(Target(url=site.url, key=site.ada)) as client,
        trio.open_nursery() as nursery,
    ):
        model_url = await nursery.start(partial(serve_scripted, script))
        api = Api(http, site.ada)
        credential = await api.add_model(model_url)
        answers.append(World(api, web, client))
        yield answers[0]
        # The next test's model is to be found in its own credential.
        await api.call("DELETE", f"/credentials/{credential}/")
        nursery.cancel_scope.cancel()


async def test_desk(world: World) -> None:
    """A sum goes to one reply, everything else to the other."""
    made = await world.make("desk.yaml")

    ended = await world.api.wait_end(await world.api.chat(made.slug, "What is 12*17?"))
    talk = await world.api.wait_end(await world.api.chat(made.slug, "Hello"))

    assert ended["final_output"]["output"].startswith("Result: 12*17 is 204")
    assert talk["final_output"]["output"].startswith("I am a scripted model")


async def test_support_router(world: World) -> None:
    """Bills are reckoned, broken things become one ticket, the rest is answered."""
    world.answers["/helpdesk/tickets"] = as_json({"id": 81}, 201)
    made = await world.make("support_router.yaml")

    runs = {}
    for text in ("My invoice says 3*40.", "The kettle is broken", "Good morning"):
        runs[text] = await world.api.wait_end(await world.api.chat(made.slug, text))

    bill, broken, other = (run["final_output"]["output"] for run in runs.values())
    assert bill.startswith("3*40 is 120")
    assert broken == "We are on it: ticket 81."
    assert other.startswith("I am a scripted model")
    assert world.requests() == [
        ("/helpdesk/tickets", {"title": "The kettle is broken", "topic": "broken"})
    ]


async def test_research_agent(world: World) -> None:
    """The agent searches, and its answer holds what was found."""
    found = {"results": [{"title": "Kettles", "url": "http://k", "content": "Old."}]}
    world.answers["/search/search"] = as_json(found)
    made = await world.make("research_agent.yaml")

    run = await world.api.chat(made.slug, "Search for the history of the tea kettle")
    ended = await world.api.wait_end(run)

    assert "Kettles" in ended["final_output"]["output"]
    calls = [event["data"] for event in await world.api.events(run)
             if event["data"].get("is_tool_call")]  # fmt: skip
    assert [call["tool_name"] for call in calls] == ["web_search", "web_search"]
    assert len(world.requests("GET")) == 1


async def test_daily_report(world: World) -> None:
    """A tick fetches the numbers and sends the text; here every second instead of every morning."""
    world.answers["/shop/numbers"] = as_json({"orders": 12})
    world.answers["/room/messages"] = as_json({}, 201)
    made = await world.make(
        "daily_report.yaml", ('cron: "0 7 * * 1-5"', "interval_seconds: 1\n  total_repeats: 1"),
        ("  timezone: Europe/Berlin\n", ""),
    )  # fmt: skip

    path = f"/workflows/{made.slug}/nodes/trigger_schedule_1/schedule/start"
    job = (await world.api.post(path))["schedule_job"]
    sent = await until(world, lambda: world.requests())

    assert sent[0][0] == "/room/messages"
    assert sent[0][1]["text"].startswith("Orders: 12. I am a scripted model")
    assert job["total_repeats"] == 1


async def until(world: World, look: Any) -> Any:
    """Wait for a request that makes *look* answer something."""
    with trio.fail_after(PATIENCE):
        while not (seen := look()):
            await world.web.arrived.wait()
            world.web.arrived = trio.Event()
    return seen


@pytest.mark.parametrize(
    ("total", "answer", "reply", "payments"),
    [
        (40, None, "Paid 40 to Tea Ltd.", 1),
        (5000, "yes", "Paid 5000 to Tea Ltd.", 1),
        (5000, "too much", "Not paid: too much", 0),
    ],
)
async def test_approval_flow(
    world: World, total: int, answer: str | None, reply: str, payments: int
) -> None:
    """Small sums are paid at once, large ones after a yes, and never after anything else."""
    world.answers["/bank/payments"] = as_json({}, 201)
    made = await world.make("approval_flow.yaml")

    run = await world.api.run(made.slug, to="Tea Ltd", total=total)
    if answer is not None:
        asked = await world.api.wait_for(run, node_id="ask", prompt=f"Pay {total} to Tea Ltd?")
        assert asked["type"] == "execution_interrupted"
        assert world.requests() == []
        await world.api.post(f"/executions/{run}/resume/", {"input": answer})
    ended = await world.api.wait_end(run)

    assert (ended["status"], ended["final_output"]["output"]) == ("completed", reply)
    assert [path for path, _ in world.requests()] == ["/bank/payments"] * payments


async def test_webhook_enrichment(world: World) -> None:
    """The order goes on with the customer's name; the same key starts nothing twice."""
    world.answers["/crm/customers/7"] = as_json({"name": "Ada"})
    world.answers["/queue/orders"] = as_json({}, 202)
    made = await world.make("webhook_enrichment.yaml")

    body, path = {"customer": "7", "total": 40}, f"/webhooks/{made.slug}"
    first = await world.api.post(path, body, Idempotency_Key="order-17")
    again = await world.api.post(path, body, Idempotency_Key="order-17")
    ended = await world.api.wait_end(first["execution_id"])

    assert again["execution_id"] == first["execution_id"]
    assert ended["status"] == "completed"
    assert world.requests() == [("/queue/orders", {"customer": "Ada", "total": 40, "large": True})]


async def test_error_alarm(world: World) -> None:
    """The failure of another workflow is told once, with where it was."""
    world.answers["/room/messages"] = as_json({}, 201)
    made = await world.make("error_alarm.yaml")
    broken = {
        "in": ("trigger_manual", {}),
        "bad": ("calculator", {"extra_config": {"expression": "1/0"}}),
    }
    await world.api.build(
        "watched", broken, "in -> bad", error_handler_workflow_id=made.workflow_id
    )

    failed = await world.api.run("watched")
    ((path, message),) = await until(world, lambda: world.requests())

    assert path == "/room/messages"
    assert message["text"].startswith("watched failed at bad: ")
    assert message["link"] == f"pipelit executions show {failed}"


async def test_batch_loop(world: World) -> None:
    """Each line is posted once, in order; the one that is refused does not stop the others."""
    numbers = iter((as_json({"number": 1}, 201), Answer(422), as_json({"number": 3}, 201)))
    world.answers["/ledger/lines"] = numbers
    made = await world.make("batch_loop.yaml")

    run = await world.api.run(made.slug, lines=[{"sku": "cup"}, {"sku": "?"}, {"sku": "pot"}])
    ended = await world.api.wait_end(run)

    assert ended["final_output"]["output"] == "2 booked, 1 refused"
    assert [body["sku"] for _, body in world.requests()] == ["cup", "?", "pot"]


async def test_the_contracts_example_of_tools_and_an_http_step(world: World) -> None:
    """engine.md §27.7, with a model and a search server of its own instead of inherited ones."""
    world.answers["/git/api/changes"] = as_json(["Boil faster"])
    made = await world.make_of(
        EXAMPLE_A, ("model: inherit", "model: demo-1"), ("inherit}", '"http://127.0.0.1:9"}')
    )

    ended = await world.api.wait_end(await world.api.run(made.slug, since="v1"))

    assert (made.node_count, made.edge_count) == (7, 6)
    assert world.requests("GET") == [("/git/api/changes?since=v1", None)]
    assert ended["final_output"]["output"].startswith("I am a scripted model")


def invoice(ask: Ask) -> Move:
    """Read an invoice: its total is the last word of the message."""
    total = int(ask.last_text("user").split()[-1])
    return Say((json.dumps({"total": total, "lines": ["cup", "pot"]}),))


async def test_the_contracts_example_of_switch_loop_and_join(site: Site) -> None:
    """engine.md §27.8: a small sum is booked without a question, a refused one not at all."""
    async with open_world(site, invoice) as world:
        world.answers["/ledger/lines"] = as_json({}, 201)
        made = await world.make_of(EXAMPLE_B, ('"gpt-4o-mini"', '"demo-1"'))
        path = f"/webhooks/{made.slug}"

        small = (await world.api.post(path, {"text": "Total 40"}))["execution_id"]
        ended = await world.api.wait_end(small)
        booked = world.requests()
        large = (await world.api.post(path, {"text": "Total 5000"}))["execution_id"]
        await world.api.wait_for(large, prompt="Pay 5000?")
        await world.api.post(f"/executions/{large}/resume/", {"input": "no"})
        refused = await world.api.wait_end(large)

    assert ended["final_output"]["output"] == "Booked 2 lines"
    assert [log["status"] for log in ended["logs"] if log["node_id"] == "approve"] == ["skipped"]
    assert booked == [("/ledger/lines", "cup"), ("/ledger/lines", "pot")]
    assert refused["status"] == "cancelled"
    assert world.requests() == booked


async def test_an_export_is_imported_as_the_same_graph(world: World) -> None:
    """Over the API: every node and edge, and the second export is the first, letter for letter."""
    made = await world.make("support_router.yaml")

    first = await export_workflow(world.client, made.slug)
    again = await create_workflow(world.client, first.text)
    second = await export_workflow(world.client, again.slug)

    assert again.slug != made.slug
    assert second == first
    assert await graph(world, again.slug) == await graph(world, made.slug)


async def test_a_fork_runs_with_its_patches(world: World) -> None:
    """The source stays as it is."""
    made = await world.make("desk.yaml")
    before = await graph(world, made.slug)
    fork = await create_workflow(
        world.client,
        f"based_on: {made.slug}\nname: Shout\npatches:\n"
        "  - {action: update_config, step: talk, config: {message: Only sums!}}\n",
    )

    ended = await world.api.wait_end(await world.api.chat(fork.slug, "Hello"))

    assert ended["final_output"]["output"] == "Only sums!"
    assert await graph(world, made.slug) == before


async def graph(world: World, slug: str) -> Any:
    """Return nodes and edges without what rows have of their own."""
    detail = await world.api.get(f"/workflows/{slug}/")
    own = {"id", "updated_at"}
    config = {"llm_model_config_id"}
    return [
        {key: value for key, value in part.items() if key not in own}
        | ({"config": {k: v for k, v in part["config"].items() if k not in config}}
           if "config" in part else {})
        for part in (*detail["nodes"], *detail["edges"])
    ]  # fmt: skip


def team(ask: Ask) -> Move:
    """Lead an epic of two tasks, or do one of them: the next step follows from those before."""
    if "spawn_and_await" not in ask.tools:
        return Say((f"Done: {ask.last_text('user')}.",))
    results = [json.loads(m["content"]) for m in ask.messages if m["role"] == "tool"]
    match results:
        case []:
            return Call("create_epic", {"title": "Kettles", "budget_tokens": 20_000})
        case [epic] | [epic, _]:
            title = f"Kettle {len(results)}"
            return Call("create_task", {"epic_id": epic["epic_id"], "title": title})
        case [_, *made] if len(made) == 2:
            jobs = [
                {"workflow_slug": "epic-worker", "task_id": task["task_id"], "input_text": "boil"}
                for task in made
            ]
            return Call("spawn_and_await", {"tasks": jobs})
        case [epic, _, _, done]:
            changes = {
                "status": "completed",
                "result_summary": "; ".join(one["output"] for one in done),
            }
            return Call("update_epic", {"epic_id": epic["epic_id"], **changes})
        case _:
            return Say(("Both boil.",))


async def test_epic_team(site: Site) -> None:
    """Two workers run; what they used is counted against the epic, and their tasks are done."""
    async with open_world(site, team) as world:
        await world.make("epic_worker.yaml")
        made = await world.make("epic_lead.yaml")

        run = await world.api.chat(made.slug, "Compare two kettles")
        ended = await world.api.wait_end(run)
        (epic,) = (await world.api.get("/epics/"))["items"]
        tasks = (await world.api.get("/tasks/"))["items"]

    assert ended["final_output"]["output"] == "Both boil."
    assert (epic["status"], epic["result_summary"]) == ("completed", "Done: boil.; Done: boil.")
    assert (epic["total_tasks"], epic["completed_tasks"], epic["budget_tokens"]) == (2, 2, 20_000)
    assert 0 < epic["spent_tokens"] <= 20_000
    assert {task["status"] for task in tasks} == {"completed"}
