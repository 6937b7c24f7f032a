"""Deleting executions for good. Contract: executions.md "batch-delete", README.md §3."""

from itertools import pairwise
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, update

from pipelit.store import schema
from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.people import problems
from tests.kit.site import People, Site, build_echo, build_thinker, writing

pytestmark = pytest.mark.slow

OWN_TABLES = ("executions", "journal", "execution_logs", "execution_events")


async def delete(api: Api, ids: Any) -> httpx2.Response:
    return await api.call("POST", "/executions/batch-delete/", {"execution_ids": ids})


async def deleted(api: Api, *ids: str) -> None:
    answer = await delete(api, list(ids))
    assert (answer.status_code, answer.content) == (204, b"")


async def exists(api: Api, execution_id: str) -> bool:
    answer = await api.call("GET", f"/executions/{execution_id}/")
    assert answer.status_code in {200, 404}
    return answer.status_code == 200


def rows_of(site: Site, execution_id: str) -> dict[str, int]:
    """Count what is stored of an execution."""
    counts = {}
    with writing(site.server) as conn:
        for name in OWN_TABLES:
            table = schema.metadata.tables[name]
            column = table.c.id if name == "executions" else table.c.execution_id
            wanted = select(func.count()).select_from(table).where(column == execution_id)
            counts[name] = conn.scalar(wanted) or 0
    return counts


async def test_a_deleted_execution_leaves_nothing(people: People, site: Site, slug: str) -> None:
    """Logs, events and journal go with it; its neighbours and the transcript stay."""
    await build_echo(people.olga, slug)
    first = await people.olga.chat(slug, "one")
    await people.olga.wait_end(first)
    second = await people.olga.chat(slug, "two")
    await people.olga.wait_end(second)
    assert all(rows_of(site, first).values())

    await deleted(people.olga, first, first)

    assert rows_of(site, first) == dict.fromkeys(OWN_TABLES, 0)
    for path in ("", "status/", "events/"):
        answer = await people.olga.call("GET", f"/executions/{first}/{path}")
        assert answer.status_code == 404
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}")
    assert [one["execution_id"] for one in listed["items"]] == [second]
    history = await people.olga.get(f"/workflows/{slug}/chat/history")
    assert [turn["text"] for turn in history["messages"]] == ["one", "one", "two", "two"]


async def test_active_executions_are_cancelled_first(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The running one and the one that waits for it; whoever listens hears of it."""
    await build_thinker(people.olga, slug, provider)
    running, pending = [await people.olga.chat(slug, text) for text in ("one", "two")]
    call = await provider.next_call()

    async with people.olga.follow(running) as events:
        await deleted(people.olga, running, pending)
        heard = [event["type"] async for event in events]

    assert heard[-1] == "execution_cancelled"
    await call.wait_gone()
    assert not await exists(people.olga, running)
    assert not await exists(people.olga, pending)
    assert provider.waiting_calls == 0


async def test_what_is_not_there_or_not_visible_is_skipped(people: People, slug: str) -> None:
    """Who started it, who owns the workflow, and an admin may delete; nobody else."""
    await build_echo(people.olga, slug, is_public=True)
    ids = [await people.olga.run(slug) for _ in range(2)]
    ids += [await people.otto.run(slug) for _ in range(2)]
    for execution_id in ids:
        await people.olga.wait_end(execution_id)
    unknown = "00000000-0000-4000-8000-000000000000"

    await deleted(people.otto, ids[0], unknown, "no id", "", ids[2])
    assert [await exists(people.ada, one) for one in ids] == [True, True, False, True]

    await deleted(people.olga, ids[0], ids[3])
    await deleted(people.ada, ids[1])
    assert [await exists(people.ada, one) for one in ids] == [False] * 4


async def test_what_one_that_runs_still_needs_stays(
    people: People, site: Site, slug: str, provider: ModelServer
) -> None:
    """Until that has ended, too: what its children's children used counts for its budget."""
    await build_thinker(people.olga, slug, provider)
    root = await people.olga.chat(slug, "one")
    call = await provider.next_call()
    await build_echo(people.olga, f"{slug}-echo")
    family = [await people.olga.chat(f"{slug}-echo", "two") for _ in range(2)]
    for child in family:
        await people.olga.wait_end(child)
    with writing(site.server) as conn:
        for parent, child in pairwise((root, *family)):
            table = schema.executions
            conn.execute(
                update(table).where(table.c.id == child).values(parent_execution_id=parent)
            )

    await deleted(people.olga, *family)
    assert [await exists(people.olga, one) for one in family] == [True, True]

    await deleted(people.olga, root, *family)
    await call.wait_gone()
    assert [await exists(people.olga, one) for one in (root, *family)] == [False] * 3


async def test_a_repeated_request_still_gets_the_first_answer(people: People, slug: str) -> None:
    """A deleted execution's Idempotency-Key starts nothing new."""
    await build_echo(people.olga, slug)
    path, body = f"/workflows/{slug}/execute/", {"text": "a"}
    first = await people.olga.call("POST", path, body, idempotency_key="k")
    execution_id = first.json()["execution_id"]
    await people.olga.wait_end(execution_id)

    await deleted(people.olga, execution_id)

    again = await people.olga.call("POST", path, body, idempotency_key="k")
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert not await exists(people.olga, execution_id)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "body.execution_ids: field required"),
        ({"execution_ids": None}, "body.execution_ids: must not be null"),
        ({"execution_ids": "x"}, "body.execution_ids: must be an array"),
        ({"execution_ids": [1]}, "body.execution_ids[0]: must be a string"),
        ({"execution_ids": ["x"] * 1001}, "body.execution_ids: must have at most 1000 items"),
    ],
)
async def test_bad_lists_are_refused(people: People, body: object, problem: str) -> None:
    """As any batch."""
    answer = await people.olga.call("POST", "/executions/batch-delete/", body)
    assert problems(answer) == [problem]


async def test_an_empty_list_and_a_full_one_do_nothing_wrong(people: People) -> None:
    """204 without anything to do."""
    await deleted(people.olga)
    await deleted(people.olga, *(f"unknown-{number}" for number in range(1000)))
