"""What the operator sees: `/system/…`, `system:actors`, `/metrics`. Contract: operations.md."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.kit.model_server import ModelServer
from tests.kit.site import People, Site, build_echo, build_thinker
from tests.kit.waiting import until
from tests.kit.ws_client import ws_client

pytestmark = pytest.mark.slow

PATHS = ("actors/", "actors/hub", "supervision/", "info/")
CONTRACT = Path(__file__).parents[2] / "docs" / "reference" / "operations.md"


@pytest.mark.parametrize("path", PATHS)
async def test_the_system_is_for_administrators(people: People, path: str) -> None:
    """401 without a key, 403 for everybody else, in the contract's words."""
    nobody = await people.anyone.call("GET", f"/system/{path}")
    olga = await people.olga.call("GET", f"/system/{path}")

    assert (nobody.status_code, olga.status_code) == (401, 403)
    assert olga.json() == {"detail": "Admin access required."}


async def test_the_tree_comes_depth_first(people: People) -> None:
    """Each actor after its parent, with exactly the contract's fields."""
    page = await people.ada.get("/system/actors/?limit=1000")
    paths = [actor["path"] for actor in page["items"]]

    assert page["total"] == len(paths)
    assert paths[:3] == ["/", "/store", "/store/writer"]
    assert set(page["items"][2]) == {
        "path", "kind", "parent", "state", "incarnation", "restarts", "started_at",
        "mailbox_depth", "mailbox_capacity", "handling", "handling_ms", "messages_handled",
        "last_error", "detail",
    }  # fmt: skip
    assert all(actor["parent"] in (None, *paths) for actor in page["items"])


async def test_actors_are_filtered_by_kind_and_paged(people: People) -> None:
    """`total` counts what matches, before paging."""
    page = await people.ada.get("/system/actors/?kind=supervisor&limit=1&offset=1")

    assert [actor["path"] for actor in page["items"]] == ["/store"]
    assert page["total"] > 2


async def test_one_actor_is_shown_with_its_children(people: People) -> None:
    """The path may contain slashes; nobody there is 404."""
    store = await people.ada.get("/system/actors/store")
    writer = await people.ada.get("/system/actors/store/writer")
    nobody = await people.ada.call("GET", "/system/actors/store/nobody")

    assert [child["path"] for child in store["children"]] == ["/store/writer"]
    assert (writer["kind"], writer["state"], writer["children"]) == ("store", "running", [])
    assert (nobody.status_code, nobody.json()) == (404, {"detail": "Actor not found."})


async def test_records_are_gapless_and_filtered(people: People) -> None:
    """Oldest first, after `since`; `actor` is a prefix."""
    page = await people.ada.get("/system/supervision/?limit=1000")
    rest = await people.ada.get("/system/supervision/?since=3&limit=2")
    writer = await people.ada.get("/system/supervision/?actor=/store/&event=actor_started")

    assert [record["seq"] for record in page["items"]] == list(range(1, page["total"] + 1))
    assert [record["seq"] for record in rest["items"]] == [4, 5]
    assert [record["actor"] for record in writer["items"]] == ["/store/writer"]
    assert set(writer["items"][0]) == {
        "seq", "timestamp", "event", "actor", "kind", "parent", "incarnation", "reason", "error",
        "detail",
    }  # fmt: skip


async def test_the_life_of_an_execution_is_recorded_with_its_id(people: People, slug: str) -> None:
    """From start to end, found by the path's prefix."""
    await build_echo(people.ada, slug)
    execution_id = await people.ada.run(slug)
    await people.ada.wait_end(execution_id)
    page = await people.ada.get(f"/system/supervision/?actor=/executions/{execution_id}")

    assert [record["event"] for record in page["items"]] == ["actor_started", "actor_stopped"]
    assert page["items"][1]["detail"]["execution_id"] == execution_id
    assert page["items"][1]["kind"] == "execution"


async def test_the_server_describes_itself(people: People) -> None:
    """With exactly the contract's fields, and nothing about where its database is."""
    info = await people.ada.get("/system/info/")

    assert set(info) == {
        "version", "node_id", "epoch", "started_at", "uptime_s", "python", "database", "servers",
        "actors", "executions", "store", "loop_lag_ms_p99", "stuck_executions",
    }  # fmt: skip
    assert set(info["database"]) == {"dialect", "version"}
    assert info["database"]["dialect"] == "sqlite"
    assert set(info["store"]) == {"queue_depth", "commits", "batch_p50", "commit_ms_p99"}
    (server,) = info["servers"]
    assert (server["node_id"], server["epoch"]) == (info["node_id"], info["epoch"])
    assert (server["live"], info["stuck_executions"]) == (True, 0)
    assert info["actors"]["hub"] == 1


async def test_administrators_hear_of_actors_live(people: People, site: Site, slug: str) -> None:
    """On `system:actors`, as the record without its traceback; others hear nothing."""
    await build_echo(people.ada, slug)
    async with (
        ws_client(site.url, token=site.ada) as ada,
        ws_client(site.url, token=site.olga) as olga,
    ):
        await ada.subscribe("system:actors")
        await olga.subscribe("system:actors")
        execution_id = await people.ada.run(slug)
        path = f"/executions/{execution_id}"
        *_, event = await ada.hear_until("supervision", event="actor_stopped", actor=path)
        assert await olga.hear_rest() == []

    assert event["channel"] == "system:actors"
    assert "seq" not in event
    assert event["data"]["kind"] == "execution"


async def test_a_socket_is_an_actor_while_it_is_open(people: People, site: Site) -> None:
    """Seen with its user, and told of when it leaves."""
    path = "/system/actors/?kind=socket&limit=1000"
    async with ws_client(site.url, token=site.ada) as ada:
        await ada.subscribe("system:actors")
        async with ws_client(site.url, token=site.olga) as olga:
            await olga.subscribe("execution:nothing")
            open_ones = (await people.ada.get(path))["items"]
            newest = open_ones[-1]["path"]
        *_, event = await ada.hear_until("supervision", event="actor_stopped", actor=newest)

    me = await people.olga.get("/users/me/")
    assert open_ones[-1]["parent"] == "/sockets"
    assert open_ones[-1]["detail"] == {"user_id": me["id"]}
    assert event["data"]["kind"] == "socket"


def families(text: str) -> set[str]:
    return {name.removeprefix("pipelit_") for name in re.findall(r"^# TYPE (\S+) ", text, re.M)}


async def test_every_metric_of_the_contract_is_there(
    people: People, provider: ModelServer, slug: str
) -> None:
    """By its exact name."""
    paragraph = CONTRACT.read_text().partition("Minimum metrics:")[2].partition("\n\n")[0]
    wanted = set(re.findall(r"`([a-z_]+)(?:\{[a-z_,]+\})?`", paragraph))
    text = (await people.anyone.http.get("/metrics")).text

    assert len(wanted) > 25
    assert wanted - families(text) == set()


async def test_a_run_is_counted(people: People, provider: ModelServer, slug: str) -> None:
    """Its end, its nodes, its call of a model and the tokens of that."""
    await build_thinker(people.ada, slug, provider)
    execution_id = await people.ada.run(slug)
    await (await provider.next_call()).say("Done.")
    await people.ada.wait_end(execution_id)
    text = (await people.anyone.http.get("/metrics")).text

    assert re.search(r'^pipelit_executions_total\{status="completed"\} [1-9]', text, re.M)
    assert re.search(r'node_duration_seconds_count\{component_type="agent",status="success"', text)
    assert re.search(
        r'llm_calls_total\{model="demo-1",outcome="success",provider="openai_compatible"\} [1-9]',
        text,
    )
    assert re.search(r'^pipelit_llm_tokens_total\{direction="input"\} [1-9]', text, re.M)
    assert re.search(r"^pipelit_execution_queue_seconds_count [1-9]", text, re.M)
    assert re.search(r"^pipelit_execution_duration_seconds_count [1-9]", text, re.M)


async def test_the_tree_is_counted_by_kind(people: People) -> None:
    """As it is at this moment, with the fullest mailbox of each kind."""
    text = (await people.anyone.http.get("/metrics")).text

    assert 'pipelit_actors{kind="hub"} 1.0\n' in text
    assert 'pipelit_mailbox_depth{kind="manager"} 0.0\n' in text
    assert re.search(r"^pipelit_uptime_seconds [0-9.]+$", text, re.M)
    assert "pipelit_stuck_executions 0.0\n" in text


async def test_requests_are_counted_by_template(people: People) -> None:
    """Never by what somebody asked for: paths and methods are not series."""
    await people.anyone.http.request("BREW", "/api/v1/secret-path")
    text = (await people.anyone.http.get("/metrics")).text

    assert 'route="-",status="404"' in text
    assert "secret-path" not in text
    assert "BREW" not in text


async def test_metrics_are_open_to_this_machine_only(people: People) -> None:
    """Who comes through a proxy needs an administrator's key."""
    far = {"X-Forwarded-For": "203.0.113.7"}

    async def ask(key: str = "") -> httpx2.Response:
        headers = far | ({"Authorization": f"Bearer {key}"} if key else {})
        return await people.anyone.http.get("/metrics", headers=headers)

    assert (await people.anyone.http.get("/metrics")).status_code == 200
    assert (await ask()).status_code == 401
    assert (await ask(people.olga.key)).status_code == 403
    assert (await ask(people.ada.key)).headers["content-type"].startswith("text/plain")


async def test_a_request_is_followed_through_the_log(
    people: People, site: Site, provider: ModelServer, slug: str
) -> None:
    """From the request over the actor and its node to the call of the model."""
    await build_thinker(people.ada, slug, provider)
    name = f"request-{slug}"[:64]
    body = {"text": "go", "payload": {}}
    answer = await people.ada.call("POST", f"/workflows/{slug}/execute/", body, X_Request_ID=name)
    execution_id = answer.json()["execution_id"]
    await (await provider.next_call()).say("Done.")
    await people.ada.wait_end(execution_id)

    def logged() -> dict[str, dict[str, Any]]:
        lines = site.server.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if f'"{name}"' in line]
        return {line["event"]: line for line in found}

    await until(lambda: logged().keys() >= {"request", "model call"})
    request, call = logged()["request"], logged()["model call"]
    assert (request["method"], request["status"]) == ("POST", 200)
    assert request["route"] == "/api/v1/workflows/{slug}/execute/"
    assert call["actor"] == f"/executions/{execution_id}"
    assert (call["execution_id"], call["node_id"]) == (execution_id, "thinker")
    assert (call["model"], call["outcome"]) == ("demo-1", "success")


async def test_the_dashboard_shows_what_a_server_counts(people: People) -> None:
    """Every metric in it is one of this server."""
    dashboard = Path(__file__).parents[2] / "ops" / "deploy" / "grafana.json"
    named = set(re.findall(r"pipelit_([a-z_]+)", dashboard.read_text()))
    text = (await people.anyone.http.get("/metrics")).text

    assert {re.sub("_(bucket|count|sum)$", "", name) for name in named} - families(text) == set()
