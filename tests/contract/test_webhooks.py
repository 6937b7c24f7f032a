"""Webhooks: who may call, what the trigger gets, what is refused. Contract: beyond.md §5."""

import json
from typing import Any

import httpx2
import pytest

from tests.kit.api import Api
from tests.kit.people import problems, refusal
from tests.kit.site import People, Site

pytestmark = pytest.mark.slow

BAD_KEY = (401, "Invalid or missing API key")
KEY_REUSED = (409, "Idempotency-Key was already used with a different request.")
JSON = {"Content-Type": "application/json"}


async def build(api: Api, slug: str, **more: object) -> None:
    """Build a workflow with two webhooks; the second comes first by priority."""
    await api.build(
        slug,
        {
            "hook": ("trigger_webhook", {}),
            "urgent": ("trigger_webhook", {"priority": 5}),
            "off": ("trigger_webhook", {"priority": 9, "is_active": False}),
            "start": ("trigger_manual", {}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ trigger | tojson }}"}}),
        },
        "hook -> say, urgent -> say, off -> say, start -> say",
        **more,
    )


async def send(api: Api, slug: str, body: object = None, query: str = "", **headers: str) -> Any:
    return await api.call("POST", f"/webhooks/{slug}{query}", body, **headers)


async def seen(api: Api, answer: httpx2.Response) -> Any:
    """Return the trigger object that the started run saw."""
    assert answer.status_code == 200, answer.text
    detail = await api.wait_end(answer.json()["execution_id"])
    return json.loads(detail["final_output"]["output"])


async def test_a_webhook_starts_the_workflow_with_the_request(people: People, slug: str) -> None:
    """200 after the execution is stored; the body is the payload, the rest is beside it."""
    await build(people.olga, slug)
    body = {"text": "paid", "order": 118}

    answer = await send(people.olga, slug, body, "?shop=berlin&empty=", x_signature="abc")

    execution_id = answer.json()["execution_id"]
    assert answer.json() == {
        "status": "accepted",
        "execution_id": execution_id,
        "message": "Workflow execution started",
    }
    trigger = await seen(people.olga, answer)
    headers = trigger.pop("headers")
    assert headers["x-signature"] == "abc"
    assert headers["content-type"] == "application/json"
    assert trigger == {
        "payload": body,
        "text": "paid",
        "query": {"shop": "berlin", "empty": ""},
        "method": "POST",
        "webhook_id": "urgent",
        "source": "webhook",
    }
    detail = await people.olga.show(execution_id)
    assert detail["trigger_payload"] == {
        "payload": body,
        "headers": headers,
        "query": {"shop": "berlin", "empty": ""},
        "method": "POST",
        "webhook_id": "urgent",
    }


@pytest.mark.parametrize(
    ("body", "payload", "text"),
    [
        (b"", {}, ""),
        (b"{}", {}, ""),
        (b"[1, 2]", {"value": [1, 2]}, ""),
        (b"null", {"value": None}, ""),
        (b'"hello"', {"value": "hello"}, ""),
        (b'{"message": "hi"}', {"message": "hi"}, "hi"),
        (b'{"text": 5, "message": "hi"}', {"text": 5, "message": "hi"}, "hi"),
    ],
)
async def test_the_body_is_any_json(
    people: People, slug: str, body: bytes, payload: Any, text: str
) -> None:
    """What is no object becomes the `value` of one; the text is looked for in two places."""
    await build(people.olga, slug)
    url = f"/api/v1/webhooks/{slug}?api_key={people.olga.key}"

    answer = await people.olga.http.post(url, content=body, headers=JSON if body else {})

    trigger = await seen(people.olga, answer)
    assert (trigger["payload"], trigger["text"]) == (payload, text)


async def test_the_key_comes_as_bearer_or_in_the_query(
    people: People, site: Site, slug: str
) -> None:
    """Neither the key nor a cookie reaches the workflow or the log."""
    await build(people.olga, slug)
    key = people.olga.key

    in_query = await send(people.anyone, slug, {}, f"?api_key={key}&a=1", cookie="session=s3cr3t")
    as_bearer = await send(people.olga, slug, {}, "?a=1")

    for answer in (in_query, as_bearer):
        trigger = await seen(people.olga, answer)
        assert trigger["query"] == {"a": "1"}
        assert not {"authorization", "cookie"} & set(trigger["headers"])
        stored = await people.olga.show(answer.json()["execution_id"])
        assert key not in json.dumps(stored)
        assert "s3cr3t" not in json.dumps(stored)
    assert key not in site.server.tail()


@pytest.mark.parametrize("query", ["", "?api_key=", "?api_key=wrong", "?key=wrong"])
async def test_a_bad_key_is_refused_in_the_webhooks_own_words(people: People, query: str) -> None:
    """Before anything else is looked at; without a full stop."""
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = await send(people.anyone, "no-such", None, query, **headers)
        assert refusal(answer) == BAD_KEY
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_key_is_refused_alike(people: People) -> None:
    """A webhook does not say what is wrong with a key."""
    key = await people.olga.post("/users/me/keys", {"name": "old"})
    await people.olga.call("DELETE", f"/users/me/keys/{key['id']}")

    assert refusal(await send(people.anyone, "x", {}, f"?api_key={key['key']}")) == BAD_KEY


async def test_the_named_trigger_is_used(people: People, slug: str) -> None:
    """One that is inactive, of another type or missing is none; it stays out of the query."""
    await build(people.olga, slug)

    trigger = await seen(
        people.olga, await send(people.olga, slug, {}, "?trigger_node_id=hook&a=1")
    )

    assert (trigger["webhook_id"], trigger["query"]) == ("hook", {"a": "1"})
    for name in ("off", "start", "say", "missing"):
        answer = await send(people.olga, slug, {}, f"?trigger_node_id={name}")
        assert refusal(answer) == (404, "No webhook trigger found.")


async def test_a_webhook_needs_a_visible_active_workflow_with_a_trigger(
    people: People, slug: str
) -> None:
    """Each with its own sentence; who may start a public workflow may call its webhook."""
    await build(people.olga, slug)
    await people.olga.build(f"{slug}-bare", {"start": ("trigger_manual", {})}, "")
    missing = (404, f"Workflow '{slug}' not found")

    assert refusal(await send(people.otto, slug, {})) == missing
    assert refusal(await send(people.olga, "no-such", {})) == (404, "Workflow 'no-such' not found")
    assert refusal(await send(people.olga, f"{slug}-bare", {})) == (
        404,
        "No webhook trigger found.",
    )
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_public": True})
    assert (await send(people.otto, slug, {})).status_code == 200
    assert (await send(people.ada, slug, {})).status_code == 200
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_active": False})
    assert refusal(await send(people.olga, slug, {})) == (400, "Workflow is inactive.")


async def test_a_repeated_webhook_gets_the_first_answer(people: People, slug: str) -> None:
    """The key itself does not count as a difference; body, query and endpoint do."""
    await build(people.olga, slug)
    key = people.olga.key
    first = await send(people.olga, slug, [1], "?a=1", idempotency_key="k")

    again = await send(people.anyone, slug, [1], f"?api_key={key}&a=1", idempotency_key="k")
    others = [
        await send(people.olga, slug, [2], "?a=1", idempotency_key="k"),
        await send(people.olga, slug, [1], "?a=2", idempotency_key="k"),
        await send(people.olga, slug, [1], "?a=1&trigger_node_id=hook", idempotency_key="k"),
        await people.olga.call(
            "POST", f"/workflows/{slug}/execute/", {"text": "1"}, idempotency_key="k"
        ),
    ]

    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert [refusal(answer) for answer in others] == [KEY_REUSED] * 4
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}")
    assert listed["total"] == 1


async def test_bad_requests_are_refused_as_everywhere(people: People, slug: str) -> None:
    """Media type, JSON, text that cannot be stored, and what is too large."""
    await build(people.olga, slug)
    url = f"/api/v1/webhooks/{slug}?api_key={people.olga.key}"
    post = people.olga.http.post

    assert refusal(await post(url, content=b"a=1")) == (
        415,
        "Unsupported media type. Use application/json.",
    )
    assert refusal(await post(url, content=b"{", headers=JSON)) == (400, "Malformed JSON body.")
    assert problems(await post(url, content=b'["\\u0000"]', headers=JSON)) == [
        "body[0]: must be valid text"
    ]
    assert problems(await post(f"{url}&a=%00", json={})) == ["query.a: must be valid text"]
    assert problems(await post(url, json={}, headers={"Idempotency-Key": "x" * 201})) == [
        "header.Idempotency-Key: must be at most 200 characters"
    ]
    almost = json.dumps("x" * (1_048_576 - 2)).encode()
    for body in (almost, almost + b"  "):
        assert refusal(await post(url, content=body, headers=JSON)) == (
            413,
            "Request body too large.",
        )
