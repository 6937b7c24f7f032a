"""Manual runs, and requests that are repeated. Contract: beyond.md §1, README.md §3."""

import httpx2
import pytest
import trio

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.people import problems, refusal
from tests.kit.site import People, Site, build_echo, build_thinker

pytestmark = pytest.mark.slow

NO_WORKFLOW = (404, "Workflow not found.")
KEY_REUSED = (409, "Idempotency-Key was already used with a different request.")
STARTS = ("execute", "chat")


async def start(
    api: Api, slug: str, body: object, endpoint: str = "execute", **headers: str
) -> httpx2.Response:
    return await api.call("POST", f"/workflows/{slug}/{endpoint}/", body, **headers)


async def count(api: Api, slug: str) -> int:
    return int((await api.get(f"/executions/?workflow_slug={slug}&limit=0"))["total"])


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (None, {"text": ""}),
        ({}, {"text": ""}),
        ({"text": "go"}, {"text": "go"}),
        ({"payload": {}}, {"text": ""}),
        ({"text": "go", "payload": {"text": 1, "n": [2]}}, None),
    ],
)
async def test_a_manual_run_takes_text_and_payload(
    people: People, slug: str, body: object, payload: object
) -> None:
    """Both optional, as the whole body is."""
    await build_echo(people.olga, slug)

    answer = await start(people.olga, slug, body)

    assert answer.status_code == 200
    execution_id = answer.json()["execution_id"]
    assert answer.json() == {"execution_id": execution_id, "status": "pending"}
    detail = await people.olga.wait_end(execution_id)
    assert detail["trigger_payload"] == (payload or body)
    assert await people.olga.get(f"/workflows/{slug}/chat/history") == {
        "messages": [],
        "thread_id": f"2:{(await people.olga.get(f'/workflows/{slug}/'))['id']}",
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"text": 1}, "body.text: must be a string"),
        ({"text": "x" * 100_001}, "body.text: must be at most 100000 characters"),
        ({"payload": []}, "body.payload: must be an object"),
        ({"payload": None}, "body.payload: must not be null"),
        ({"trigger_node_id": 1}, "body.trigger_node_id: must be a string"),
        ([], "body: must be an object"),
    ],
)
async def test_bad_manual_runs_are_refused(people: People, body: object, problem: str) -> None:
    """As any body."""
    assert problems(await start(people.olga, "no-such", body)) == [problem]


async def test_a_manual_run_needs_an_active_workflow_and_trigger(people: People, slug: str) -> None:
    """Each with its own sentence; an inactive workflow looks like none."""
    await people.olga.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "off": ("trigger_manual", {"is_active": False}),
            "say": ("reply_chat", {"extra_config": {"message": "hi"}}),
        },
        "chat_in -> say, off -> say",
    )
    no_trigger = (404, "No trigger configured for manual execution")

    assert refusal(await start(people.olga, slug, {})) == no_trigger
    for name in ("off", "chat_in", "missing", ""):
        answer = await start(people.olga, slug, {"trigger_node_id": name})
        assert refusal(answer) == (404, "Manual trigger node not found")
    assert refusal(await start(people.otto, slug, {})) == NO_WORKFLOW
    assert refusal(await start(people.olga, f"{slug}-2", {})) == NO_WORKFLOW
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_active": False})
    assert refusal(await start(people.olga, slug, {})) == NO_WORKFLOW
    assert refusal(await start(people.ada, slug, {})) == NO_WORKFLOW


async def test_manual_runs_do_not_wait_for_each_other(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Each has a thread of its own."""
    await build_thinker(people.olga, slug, provider)
    runs = [await people.olga.run(slug) for _ in range(3)]

    calls = [await provider.next_call() for _ in runs]

    for call in calls:
        await call.say("Done.")
    for run in runs:
        assert (await people.olga.wait_end(run))["status"] == "completed"


@pytest.mark.parametrize("endpoint", STARTS)
async def test_a_run_goes_on_without_the_client_that_started_it(
    people: People, site: Site, slug: str, endpoint: str
) -> None:
    """Twenty clients hang up without waiting: what was stored runs to its end."""
    await build_echo(people.olga, slug)
    host, _, port = site.url.removeprefix("http://").partition(":")
    request = (
        f"POST /api/v1/workflows/{slug}/{endpoint}/ HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {site.olga}\r\nContent-Type: application/json\r\n"
        'Content-Length: 14\r\n\r\n{"text": "hi"}'
    )
    for _ in range(20):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(request.encode())
    last = await start(people.olga, slug, {"text": "last"}, endpoint)

    await people.olga.wait_end(last.json()["execution_id"])
    page = await people.olga.get(f"/executions/?workflow_slug={slug}")

    for item in page["items"]:
        detail = await people.olga.wait_end(item["execution_id"])
        assert detail["status"] == "completed"
    if endpoint == "chat":
        history = await people.olga.get(f"/workflows/{slug}/chat/history?limit=1000")
        assert len(history["messages"]) == 2 * page["total"]


@pytest.mark.parametrize("endpoint", STARTS)
async def test_a_repeated_request_gets_the_first_answer(
    people: People, slug: str, endpoint: str
) -> None:
    """Marked as a repeat; nothing is started, also when the workflow is inactive by now."""
    await build_echo(people.olga, slug)
    body = {"text": "once", "unknown": {"a": 1, "b": 2}}
    first = await start(people.olga, slug, body, endpoint, idempotency_key="k 1")
    await people.olga.wait_end(first.json()["execution_id"])

    again = await start(people.olga, slug, body, endpoint, idempotency_key="k 1")
    turned = {"unknown": {"b": 2, "a": 1}, "text": "once"}
    reordered = await start(people.olga, slug, turned, endpoint, idempotency_key="k 1")
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_active": False})
    inactive = await start(people.olga, slug, body, endpoint, idempotency_key="k 1")

    assert "idempotent-replayed" not in first.headers
    for repeat in (again, reordered, inactive):
        assert (repeat.status_code, repeat.content) == (200, first.content)
        assert repeat.headers["idempotent-replayed"] == "true"
    assert await count(people.olga, slug) == 1


async def test_a_key_belongs_to_one_request(people: People, slug: str) -> None:
    """Another body or endpoint: 409. Another user, workflow or key: a request of its own."""
    await build_echo(people.olga, slug, is_public=True)
    await build_echo(people.olga, f"{slug}-2")
    first = await start(people.olga, slug, {"text": "a"}, idempotency_key="k")

    other_body = await start(people.olga, slug, {"text": "b"}, idempotency_key="k")
    other_endpoint = await start(people.olga, slug, {"text": "a"}, "chat", idempotency_key="k")
    own = [
        await start(people.otto, slug, {"text": "b"}, idempotency_key="k"),
        await start(people.olga, f"{slug}-2", {"text": "b"}, idempotency_key="k"),
        await start(people.olga, slug, {"text": "b"}, idempotency_key="k2"),
    ]

    assert refusal(other_body) == refusal(other_endpoint) == KEY_REUSED
    assert [answer.status_code for answer in own] == [200] * 3
    ids = {answer.json()["execution_id"] for answer in (first, *own)}
    assert len(ids) == 4


@pytest.mark.parametrize("endpoint", STARTS)
async def test_the_same_request_at_once_starts_one_execution(
    people: People, slug: str, endpoint: str
) -> None:
    """Ten at once, one execution, one answer."""
    await build_echo(people.olga, slug)
    answers: list[httpx2.Response] = []

    async def send() -> None:
        answers.append(await start(people.olga, slug, {"text": "a"}, endpoint, idempotency_key="k"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(send)

    assert {(answer.status_code, answer.content) for answer in answers} == {
        (200, answers[0].content)
    }
    replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
    assert sorted(map(str, replayed)) == ["None", *["true"] * 9]
    assert await count(people.olga, slug) == 1


async def test_refused_requests_do_not_use_up_their_key(people: People, slug: str) -> None:
    """Once the reason is gone, the same request starts."""
    await build_echo(people.olga, slug, is_active=False)
    for endpoint, status in (("chat", 400), ("execute", 404)):
        answer = await start(people.olga, slug, {"text": "a"}, endpoint, idempotency_key=endpoint)
        assert answer.status_code == status
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_active": True})

    for endpoint in STARTS:
        answer = await start(people.olga, slug, {"text": "a"}, endpoint, idempotency_key=endpoint)
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers


async def test_half_of_a_surrogate_pair_can_be_repeated_too(people: People, slug: str) -> None:
    """A field that nobody reads may hold text that is no UTF-8; the key works all the same."""
    await build_echo(people.olga, slug)
    headers = {
        "Authorization": f"Bearer {people.olga.key}",
        "Content-Type": "application/json",
        "Idempotency-Key": "half",
    }

    async def send() -> httpx2.Response:
        return await people.olga.http.request(
            "POST",
            f"/api/v1/workflows/{slug}/execute/",
            headers=headers,
            content=rb'{"text": "once", "unknown": "\ud800"}',
        )

    first, again = await send(), await send()

    assert (first.status_code, first.content) == (200, again.content)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("x" * 201, "must be at most 200 characters"),
        ("", "must be at least 1 characters"),
        ("a\tb", "must be valid text"),
    ],
)
@pytest.mark.parametrize("endpoint", STARTS)
async def test_keys_are_1_to_200_printable_characters(
    people: People, endpoint: str, key: str, problem: str
) -> None:
    """Checked with the body, before anything is looked for."""
    answer = await start(people.olga, "no-such", {"text": "a"}, endpoint, idempotency_key=key)

    assert problems(answer) == [f"header.Idempotency-Key: {problem}"]
