"""Chat over HTTP: messages in, transcript out. Contract: chat.md."""

from typing import Any

import httpx2
import pytest
import trio

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.people import problems, refusal
from tests.kit.site import People, build_echo, build_thinker

pytestmark = pytest.mark.slow

NO_WORKFLOW = (404, "Workflow not found.")
NO_TRIGGER = (404, "No chat trigger found.")
BAD_BEFORE = (
    400,
    "Invalid 'before' datetime format. Use ISO 8601 (e.g. 2026-01-01T00:00:00Z).",
)


async def post(api: Api, slug: str, body: object, **headers: str) -> httpx2.Response:
    return await api.call("POST", f"/workflows/{slug}/chat/", body, **headers)


async def talk(api: Api, slug: str, *texts: str) -> None:
    """Say something and wait for the reply, one after the other."""
    for text in texts:
        await api.wait_end(await api.chat(slug, text))


async def said(api: Api, slug: str, query: str = "?limit=1000") -> list[tuple[str, str]]:
    page = await api.get(f"/workflows/{slug}/chat/history{query}")
    return [(message["role"], message["text"]) for message in page["messages"]]


async def test_a_message_starts_an_execution(people: People, slug: str) -> None:
    """The answer says which; the payload is the text; the thread is the caller's."""
    await build_echo(people.olga, slug)

    answer = await post(people.olga, slug, {"text": "hi  \n", "unknown": 1})

    assert answer.status_code == 200
    body = answer.json()
    assert body == {"execution_id": body["execution_id"], "status": "pending", "response": ""}
    detail = await people.olga.wait_end(body["execution_id"])
    assert detail["trigger_payload"] == {"text": "hi  \n"}
    assert detail["final_output"] == {"output": "hi  \n"}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "body.text: field required"),
        ({"text": None}, "body.text: must not be null"),
        ({"text": 1}, "body.text: must be a string"),
        ({"text": ""}, "body.text: must be at least 1 characters"),
        ({"text": " \n\t"}, "body.text: must not be blank"),
        ({"text": "x" * 100_001}, "body.text: must be at most 100000 characters"),
        ({"text": "a\0b"}, "body.text: must be valid text"),
        ({"text": "a", "trigger_node_id": 7}, "body.trigger_node_id: must be a string"),
        ([], "body: must be an object"),
    ],
)
async def test_bad_messages_are_refused(people: People, body: object, problem: str) -> None:
    """Before the workflow is looked for."""
    assert problems(await post(people.olga, "no-such", body)) == [problem]


async def test_the_longest_message_is_taken(people: People, slug: str) -> None:
    """100 000 characters, and null for no trigger."""
    await build_echo(people.olga, slug)

    answer = await post(people.olga, slug, {"text": "x" * 100_000, "trigger_node_id": None})

    assert answer.status_code == 200
    await people.olga.wait_end(answer.json()["execution_id"])


async def test_who_may_not_see_the_workflow_gets_404(people: People, slug: str) -> None:
    """For a message, the history and its deletion; a public one serves everybody."""
    await build_echo(people.olga, slug)
    path = f"/workflows/{slug}/chat/"

    for other in (path, path.replace(slug, "no-such")):
        assert refusal(await people.otto.call("POST", other, {"text": "hi"})) == NO_WORKFLOW
        assert refusal(await people.otto.call("GET", f"{other}history")) == NO_WORKFLOW
        assert refusal(await people.otto.call("DELETE", f"{other}history")) == NO_WORKFLOW

    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_public": True})
    await talk(people.otto, slug, "hi")
    assert await said(people.otto, slug) == [("user", "hi"), ("assistant", "hi")]


async def test_an_inactive_workflow_takes_no_message(people: People, slug: str) -> None:
    """400; its history can still be read."""
    await build_echo(people.olga, slug, is_active=False)

    assert refusal(await post(people.olga, slug, {"text": "hi"})) == (400, "Workflow is inactive.")
    assert await said(people.olga, slug) == []


async def test_the_trigger_is_the_named_or_the_first_active_one(people: People, slug: str) -> None:
    """Highest priority, then lowest id; inactive ones and other types do not count."""
    echo = {"extra_config": {"message": "{{ trigger.text }}"}}
    await people.olga.build(
        slug,
        {
            "off": ("trigger_chat", {"priority": 9, "is_active": False}),
            "low": ("trigger_chat", {"priority": 1}),
            "high": ("trigger_chat", {"priority": 5}),
            "late": ("trigger_chat", {"priority": 5}),
            "manual": ("trigger_manual", {}),
            "say": ("reply_chat", echo),
        },
        "off -> say, low -> say, high -> say, late -> say, manual -> say",
    )

    async def chosen(**more: object) -> str:
        answer = await post(people.olga, slug, {"text": "hi", **more})
        detail = await people.olga.wait_end(answer.json()["execution_id"])
        return str(detail["logs"][0]["node_id"])

    assert await chosen() == "high"
    assert await chosen(trigger_node_id="late") == "late"
    for name in ("off", "manual", "say", "missing", ""):
        answer = await post(people.olga, slug, {"text": "hi", "trigger_node_id": name})
        assert refusal(answer) == NO_TRIGGER


async def test_a_workflow_without_chat_trigger_refuses(people: People, slug: str) -> None:
    """404 of its own."""
    await people.olga.build(slug, {"start": ("trigger_manual", {})}, "")

    assert refusal(await post(people.olga, slug, {"text": "hi"})) == NO_TRIGGER


async def test_a_session_runs_one_execution_at_a_time_in_order(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The second waits for the first, also when that is cancelled; other users do not wait."""
    await build_thinker(people.olga, slug, provider, is_public=True)
    runs = [await people.olga.chat(slug, text) for text in ("one", "two", "three")]
    first = await provider.next_call()
    ottos = await people.otto.chat(slug, "mine")
    other = await provider.next_call()
    assert [m["content"] for m in other.body["messages"]][-1] == "mine"
    await other.say("Yours.")
    await people.otto.wait_end(ottos)
    statuses = [(await people.olga.show(run))["status"] for run in runs]
    assert statuses == ["running", "pending", "pending"]

    await people.olga.post(f"/executions/{runs[0]}/cancel/")
    await first.wait_gone()
    second = await provider.next_call()
    assert second.body["messages"][-1]["content"] == "two"
    assert provider.waiting_calls == 0
    await second.say("Two.")
    await (await provider.next_call()).say("Three.")
    await people.olga.wait_end(runs[2])

    assert await said(people.olga, slug) == [
        *[("user", text) for text in ("one", "two", "three")],
        ("assistant", "Two."),
        ("assistant", "Three."),
    ]


async def test_a_full_session_refuses_and_stores_nothing(
    people: People, slug: str, provider: ModelServer
) -> None:
    """One runs, 50 wait, the next gets 503; a cancelled one makes room."""
    await build_thinker(people.olga, slug, provider)
    runs = [await people.olga.chat(slug, f"message {n}") for n in range(51)]

    full = await post(people.olga, slug, {"text": "too much"})

    assert refusal(full) == (503, "Failed to enqueue workflow execution.")
    assert full.headers["retry-after"] == "1"
    assert (await people.olga.get(f"/executions/?workflow_slug={slug}&limit=0"))["total"] == 51
    assert len(await said(people.olga, slug)) == 51
    await people.olga.post(f"/executions/{runs[25]}/cancel/")
    assert (await post(people.olga, slug, {"text": "fits"})).status_code == 200
    assert (await people.olga.call("DELETE", f"/workflows/{slug}/")).status_code == 204


async def test_history_pages_backwards(people: People, slug: str) -> None:
    """The newest by default 10, oldest first; `before` excludes itself and is any ISO 8601."""
    await build_echo(people.olga, slug)
    workflow = await people.olga.get(f"/workflows/{slug}/")
    await talk(people.olga, slug, *"abcdef")
    path = f"/workflows/{slug}/chat/history"

    page = await people.olga.get(path)
    whole = await people.olga.get(f"{path}?limit=12")

    assert set(page) == {"messages", "thread_id", "has_more"}
    assert page["thread_id"] == f"2:{workflow['id']}"
    assert (len(page["messages"]), page["has_more"]) == (10, True)
    assert page["messages"] == whole["messages"][2:]
    assert whole["has_more"] is False
    assert [m["text"] for m in whole["messages"]] == list("aabbccddeeff")
    assert [m["role"] for m in whole["messages"]] == ["user", "assistant"] * 6
    stamps = [m["timestamp"] for m in whole["messages"]]
    assert stamps == sorted(set(stamps))
    for suffix in ("", "Z", "%2B00:00"):
        older = await people.olga.get(f"{path}?before={stamps[2]}{suffix}")
        assert older["messages"] == whole["messages"][:2]
        assert older["has_more"] is False
    none = await people.olga.get(f"{path}?limit=0")
    assert (none["messages"], none["has_more"]) == ([], True)
    nothing = await people.olga.get(f"{path}?before=2001-01-01")
    assert (nothing["messages"], nothing["has_more"]) == ([], False)


@pytest.mark.parametrize(
    "before",
    ["yesterday", "2026-13-01", "0001-01-01T00:00:00%2B23:00", "9999-12-31T23:59:59-23:00"],
)
async def test_a_before_that_is_no_instant_is_refused(
    people: People, slug: str, before: str
) -> None:
    """400 with the published sentence, also where the calendar ends."""
    await build_echo(people.olga, slug)
    path = f"/workflows/{slug}/chat/history"

    assert refusal(await people.olga.call("GET", f"{path}?before={before}")) == BAD_BEFORE


@pytest.mark.parametrize(
    ("limit", "problem"),
    [("1001", "must be <= 1000"), ("-1", "must be >= 0"), ("ten", "must be an integer")],
)
async def test_a_bad_limit_is_refused(people: People, limit: str, problem: str) -> None:
    """As in every list."""
    answer = await people.olga.call("GET", f"/workflows/no-such/chat/history?limit={limit}")

    assert problems(answer) == [f"query.limit: {problem}"]


async def test_everybody_has_a_thread_of_their_own(people: People, slug: str) -> None:
    """The admin too: an unknown thread is empty."""
    await build_echo(people.olga, slug, is_public=True)
    await talk(people.olga, slug, "mine")

    assert await said(people.ada, slug) == []
    await talk(people.ada, slug, "admin's")
    assert await said(people.olga, slug) == [("user", "mine"), ("assistant", "mine")]


async def test_a_run_without_a_text_reply_adds_no_answer(people: People, slug: str) -> None:
    """Failed runs leave the user's message alone; manual runs leave no trace at all."""
    await people.olga.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "start": ("trigger_manual", {}),
            "fetch": ("http_request", {"extra_config": {"url": "http://10.0.0.1/"}}),
        },
        "chat_in -> fetch, start -> fetch",
    )

    await talk(people.olga, slug, "fetch it")
    await people.olga.wait_end(await people.olga.run(slug, text="by hand"))

    assert await said(people.olga, slug) == [("user", "fetch it")]


async def test_a_deleted_history_is_forgotten_and_starts_again(
    people: People, slug: str, provider: ModelServer
) -> None:
    """The running execution goes on; its reply is the first message of the new history."""
    await build_thinker(people.olga, slug, provider)
    run = await people.olga.chat(slug, "old")
    call = await provider.next_call()
    path = f"/workflows/{slug}/chat/history"

    first = await people.olga.call("DELETE", path)
    assert (first.status_code, first.content) == (204, b"")
    assert await said(people.olga, slug) == []
    await call.say("New.")
    await people.olga.wait_end(run)

    assert await said(people.olga, slug) == [("assistant", "New.")]
    assert (await people.olga.call("DELETE", path)).status_code == 204
    assert (await people.olga.call("DELETE", path)).status_code == 204
    assert await said(people.olga, slug) == []
    assert (await people.olga.show(run))["status"] == "completed"


async def test_an_agent_remembers_only_when_told_to(
    people: People, slug: str, provider: ModelServer
) -> None:
    """Its memory is the thread's; deleting the history takes it too."""
    credential = await people.olga.add_model(provider.url)
    await people.olga.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
            "keeper": ("agent", {"extra_config": {"conversation_memory": True}}),
        },
        "chat_in -> keeper, model -> keeper : llm",
    )

    async def ask(text: str, reply: str) -> list[Any]:
        run = await people.olga.chat(slug, text)
        call = await provider.next_call()
        await call.say(reply)
        await people.olga.wait_end(run)
        return [m["content"] for m in call.body["messages"] if m["role"] != "system"]

    assert await ask("I am Olga.", "Hello.") == ["I am Olga."]
    assert await ask("Who?", "Olga.") == ["I am Olga.", "Hello.", "Who?"]
    await people.olga.call("DELETE", f"/workflows/{slug}/chat/history")
    assert await ask("And now?", "No idea.") == ["And now?"]


async def test_two_messages_at_once_are_both_kept(people: People, slug: str) -> None:
    """Twenty at once from one user: twenty executions, twenty messages, one order."""
    await build_echo(people.olga, slug)
    runs: list[str] = []

    async def send(number: int) -> None:
        runs.append(await people.olga.chat(slug, str(number)))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(send, number)
    details = [await people.olga.wait_end(run) for run in runs]

    turns = await said(people.olga, slug)
    asked = [text for role, text in turns if role == "user"]
    answered = [text for role, text in turns if role == "assistant"]
    assert sorted(asked) == sorted(str(number) for number in range(20))
    assert answered == asked
    starts = sorted(details, key=lambda detail: str(detail["started_at"]))
    assert [detail["trigger_payload"]["text"] for detail in starts] == asked
