"""Messages from the message gateway, and the replies it gets. Contract: beyond.md §4.

The server is a process of its own with a gateway configured; each test plays the gateway.
"""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import trio
from sqlalchemy import insert, select, update

from pipelit.store import schema
from tests.kit.api import Api
from tests.kit.gateway import FakeGateway, gateway_server
from tests.kit.gateway import refusal as refused
from tests.kit.people import problems, refusal
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import People, Site, run_site, writing

pytestmark = pytest.mark.slow

TOKEN = "inbound-token"
LENA = {"id": "88120", "username": "lena", "display_name": "Lena B."}
KEY_REUSED = (409, "Idempotency-Key was already used with a different request.")
INCOMPLETE = (422, "route must contain workflow_slug and trigger_node_id")
TEXTS = {
    "confirmed": "Action confirmed. Resuming execution...",
    "cancelled": "Action cancelled.",
    "expired": "This confirmation has expired.",
}


@pytest.fixture(scope="module")
def gateway_port() -> int:
    """Where the server expects the gateway."""
    return free_port()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, gateway_port: int) -> Iterator[Site]:
    """A server with a gateway."""
    environ = {
        "GATEWAY_URL": f"http://127.0.0.1:{gateway_port}",
        "GATEWAY_INBOUND_TOKEN": TOKEN,
        "GATEWAY_SEND_TOKEN": "send-token",
    }
    server = ServerProcess(tmp_path_factory.mktemp("inbound"), free_port(), environ)
    with run_site(server) as running:
        yield running


@pytest.fixture
async def gateway(site: Site, gateway_port: int, slug: str) -> AsyncIterator[FakeGateway]:
    """The gateway, up for one test; it forgets what other tests' runs still send."""
    async with gateway_server(gateway_port, only=slug) as running:
        yield running


@pytest.fixture
def sender(people: People) -> Api:
    """Who speaks for the gateway."""
    return Api(people.anyone.http, TOKEN)


async def build(api: Api, slug: str, **more: object) -> None:
    """Build a workflow that answers with the trigger object it saw."""
    await api.build(
        slug,
        {
            "tg": ("trigger_telegram", {}),
            "chat_in": ("trigger_chat", {}),
            "off": ("trigger_telegram", {"is_active": False}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ trigger | tojson }}"}}),
        },
        "tg -> say, chat_in -> say, off -> say",
        **more,
    )


def message(slug: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    """Return a message through the credential `slug`; `source` is added to, all else replaced."""
    source = {"protocol": "telegram", "chat_id": "5512", "from": LENA} | more.pop("source", {})
    route = {"workflow_slug": slug, "trigger_node_id": "tg"}
    stamp = "2026-02-03T15:00:00Z"
    body = {"route": route, "credential_id": slug, "text": text, "timestamp": stamp}
    return body | {"source": source} | more


async def send(sender: Api, body: object, **headers: str) -> httpx2.Response:
    return await sender.call("POST", "/inbound", body, **headers)


async def accepted(sender: Api, body: object, **headers: str) -> str:
    answer = await send(sender, body, **headers)
    assert answer.status_code == 202, answer.text
    execution_id = str(answer.json()["execution_id"])
    assert answer.json() == {"execution_id": execution_id, "status": "pending"}
    return execution_id


async def user_of(site: Site, execution_id: str) -> Any:
    """Return the account that an execution runs as."""
    users, executions = schema.users, schema.executions
    wanted = select(users).join(executions, executions.c.user_id == users.c.id)

    def read() -> Any:
        with writing(site.server) as conn:
            return conn.execute(wanted.where(executions.c.id == execution_id)).one()

    return await trio.to_thread.run_sync(read)


async def test_a_message_starts_the_named_trigger(people: People, sender: Api, slug: str) -> None:
    """The payload holds what was sent, attachments as lines and as files."""
    await build(people.olga, slug)
    file = {"filename": "a.pdf", "mime_type": "application/pdf", "download_url": "http://x/a"}
    body = message(
        slug,
        "look",
        source={"message_id": "77", "reply_to_message_id": None},
        attachments=[{**file, "size_bytes": 9}, {"filename": "b", "mime_type": "text/plain"}],
        extra_data={"a": 1},
    )

    detail = await people.olga.wait_end(await accepted(sender, body))

    payload = {
        "text": "look\n[Attached file: a.pdf | url: http://x/a | type: application/pdf]"
        "\n[Attached file: b | url:  | type: text/plain]",
        "chat_id": "5512",
        "message_id": "77",
        "credential_id": slug,
        "user_id": "88120",
        "files": [
            {
                "filename": "a.pdf",
                "mime_type": "application/pdf",
                "size_bytes": 9,
                "url": "http://x/a",
            },
            {"filename": "b", "mime_type": "text/plain", "size_bytes": 0, "url": ""},
        ],
    }
    assert detail["trigger_payload"] == payload
    assert json.loads(detail["final_output"]["output"]) == {
        **payload,
        "chat_id": 5512,
        "user_name": "Lena B.",
        "source": "gateway",
        "protocol": "telegram",
        "payload": payload,
    }


async def test_only_telegram_triggers_see_numbers(people: People, sender: Api, slug: str) -> None:
    """Any active trigger may be named; others get the chat id as it was sent."""
    await build(people.olga, slug)
    for node_id, given, shown in (
        ("chat_in", "5512", "5512"),
        ("tg", "-1001", -1001),
        ("tg", "007", "007"),
        ("tg", "room", "room"),
    ):
        route = {"workflow_slug": slug, "trigger_node_id": node_id}
        body = message(slug, route=route, source={"chat_id": given})
        detail = await people.olga.wait_end(await accepted(sender, body))
        assert json.loads(detail["final_output"]["output"])["chat_id"] == shown


async def test_the_sender_gets_an_account_at_first_contact(
    people: People, sender: Api, site: Site, slug: str
) -> None:
    """By its external id; the name is made free, and nobody can log in with it."""
    await build(people.olga, slug)
    olga_too = {"id": f"{slug}-1", "username": "olga"}
    nameless = {"id": f"{slug}-2", "username": None}

    first, again, other, anonymous = [
        await user_of(site, await accepted(sender, message(slug, source={"from": who})))
        for who in (olga_too, {**olga_too, "username": "changed"}, nameless, None)
    ]

    assert (first.username, first.external_id) == ("olga_1", f"{slug}-1")
    assert (first.role, first.password_hash, first.is_active) == ("normal", None, True)
    assert again.id == first.id
    assert other.username == f"gw_{slug}-2"
    assert (anonymous.username, anonymous.external_id) == ("gateway_anonymous", None)
    shared = await user_of(site, await accepted(sender, message(slug, source={"from": None})))
    assert shared.id == anonymous.id
    listed = await people.ada.get(f"/users/{first.id}")
    assert (listed["is_agent"], listed["key_count"]) == (False, 0)


async def test_many_first_messages_at_once_make_one_account(
    people: People, sender: Api, site: Site, slug: str
) -> None:
    """Each message starts its own execution."""
    await build(people.olga, slug)
    started: list[str] = []

    async def one() -> None:
        body = message(slug, source={"from": {"id": slug, "username": slug}})
        started.append(await accepted(sender, body))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)

    assert len(set(started)) == 8
    assert len({(await user_of(site, execution_id)).id for execution_id in started}) == 1


@pytest.mark.parametrize("token", ["", "wrong", "Inbound-token"])
async def test_only_the_gateway_may_send(people: People, token: str) -> None:
    """Before anything is looked at; API keys do not count."""
    for key in (token, people.ada.key):
        answer = await send(Api(people.anyone.http, key), {"nonsense": True})
        assert refusal(answer) == (401, "Invalid gateway token")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"route": None}, "body.route: must not be null"),
        ({"route": "x"}, "body.route: must be an object"),
        ({"text": None}, "body.text: must not be null"),
        ({"timestamp": 5}, "body.timestamp: must be a string"),
        ({"attachments": [{"filename": "a"}]}, "body.attachments[0].mime_type: field required"),
        ({"source": {"chat_id": 5}}, "body.source.chat_id: must be a string"),
        ({"source": {"from": {}}}, "body.source.from.id: field required"),
        ({"extra_data": []}, "body.extra_data: must be an object"),
    ],
)
async def test_malformed_messages_are_refused(
    sender: Api, change: dict[str, Any], problem: str
) -> None:
    """As any body."""
    assert problems(await send(sender, message("x", **change))) == [problem]


@pytest.mark.parametrize(
    "route",
    [
        {},
        {"workflow_slug": "x"},
        {"trigger_node_id": "tg"},
        {"workflow_slug": "", "trigger_node_id": "tg"},
        {"workflow_slug": "x", "trigger_node_id": None},
        {"workflow_slug": 5, "trigger_node_id": "tg"},
    ],
)
async def test_an_incomplete_route_has_its_own_sentence(sender: Api, route: dict[str, Any]) -> None:
    """A plain string."""
    assert refusal(await send(sender, message("x", route=route))) == INCOMPLETE


async def test_a_message_needs_an_active_workflow_and_trigger(
    people: People, sender: Api, slug: str
) -> None:
    """In this order, each in its own words without a full stop; whose workflow does not matter."""
    await build(people.otto, slug)

    def to(node_id: str) -> dict[str, Any]:
        return message(slug, route={"workflow_slug": slug, "trigger_node_id": node_id})

    assert refusal(await send(sender, message("no-such"))) == (404, "Workflow not found")
    for node_id in ("off", "say", "missing"):
        assert refusal(await send(sender, to(node_id))) == (404, "Trigger node not found")
    await people.otto.call("PATCH", f"/workflows/{slug}/", {"is_active": False})
    for node_id in ("missing", "tg"):
        assert refusal(await send(sender, to(node_id))) == (422, "Workflow is inactive")


async def test_a_credential_may_be_kept_to_some_senders(
    people: People, sender: Api, gateway: FakeGateway, slug: str
) -> None:
    """By external id; nobody else, not even without one, and only where the list says something."""
    await build(people.olga, slug)
    for name, allowed in ((f"{slug}-some", " 88120, 7 "), (f"{slug}-all", "")):
        detail = {"allowed_user_ids": allowed}
        body = {"name": name, "credential_type": "gateway", "detail": detail}
        await people.olga.post("/credentials/", body)

    async def try_as(who: Any, credential_id: str, text: str = "hi") -> int | tuple[int, Any]:
        body = message(slug, text, credential_id=credential_id, source={"from": who})
        answer = await send(sender, body)
        return answer.status_code if answer.is_success else refusal(answer)

    stranger, not_allowed = {"id": "8812"}, (403, "Sender not allowed")
    assert await try_as(LENA, f"{slug}-some") == 202
    assert await try_as(stranger, f"{slug}-some") == not_allowed
    assert await try_as(None, f"{slug}-some") == not_allowed
    assert await try_as(stranger, f"{slug}-some", "/confirm_c41f09ab") == not_allowed
    assert await try_as(stranger, f"{slug}-all") == 202
    assert await try_as(stranger, f"{slug}-unknown") == 202


async def test_a_disabled_contact_is_not_allowed_any_more(
    people: People, sender: Api, site: Site, slug: str
) -> None:
    """An admin can shut somebody out."""
    await build(people.olga, slug)
    body = message(slug, source={"from": {"id": slug}})
    user = await user_of(site, await accepted(sender, body))

    await people.ada.call("DELETE", f"/users/{user.id}")

    assert refusal(await send(sender, body)) == (403, "Sender not allowed")


async def test_a_repeated_message_gets_the_first_answer(
    people: People, sender: Api, slug: str
) -> None:
    """202 again, marked; also from a new contact and when the workflow is inactive by now."""
    await build(people.olga, slug)
    body = message(slug, source={"from": {"id": slug}})
    first = await send(sender, body, idempotency_key="k")

    again = await send(sender, body, idempotency_key="k")
    other_body = await send(sender, {**body, "text": "ho"}, idempotency_key="k")
    other_sender = await send(sender, message(slug), idempotency_key="k")
    await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_active": False})
    inactive = await send(sender, body, idempotency_key="k")

    assert "idempotent-replayed" not in first.headers
    for repeat in (again, inactive):
        assert (repeat.status_code, repeat.content) == (202, first.content)
        assert repeat.headers["idempotent-replayed"] == "true"
    assert refusal(other_body) == KEY_REUSED
    assert other_sender.status_code == 202
    assert "idempotent-replayed" not in other_sender.headers
    assert (await people.olga.get(f"/executions/?workflow_slug={slug}"))["total"] == 2


async def test_the_reply_goes_back_to_the_chat(
    people: People, sender: Api, gateway: FakeGateway, slug: str
) -> None:
    """At once, to the chat id as it was sent; a refused one is sent again."""
    await people.olga.build(
        slug,
        {
            "tg": ("trigger_telegram", {}),
            "say": ("reply_chat", {"extra_config": {"message": "Got: {{ trigger.text }}"}}),
        },
        "tg -> say",
    )
    gateway.answers = [refused(503)]

    execution_id = await accepted(sender, message(slug, "parcel 4471"))

    call = (
        "POST",
        "/api/v1/send",
        {
            "credential_id": slug,
            "chat_id": "5512",
            "text": "Got: parcel 4471",
            "file_ids": [],
        },
    )
    assert await gateway.wait_calls(2) == [call, call]
    assert gateway.tokens == ["Bearer send-token"] * 2
    assert (await people.olga.show(execution_id))["status"] == "completed"


async def test_runs_without_a_chat_send_nothing(
    people: People, gateway: FakeGateway, slug: str
) -> None:
    """A chat over the API is answered by events."""
    await build(people.olga, slug)

    await people.olga.wait_end(await people.olga.chat(slug, "hi"))

    assert gateway.calls == []


def ask(site: Site, execution_id: str, task_id: str, **more: Any) -> None:
    """Store an open question of an execution that has not ended, as a confirmation does."""
    now = datetime.now(UTC)
    question = {
        "task_id": task_id,
        "execution_id": execution_id,
        "node_id": "confirm",
        "iteration": "0",
        "kind": "human_confirmation",
        "chat_id": "5512",
        "created_at": now,
        "expires_at": now + timedelta(seconds=300),
    }
    with writing(site.server) as conn:
        conn.execute(insert(schema.pending_tasks).values(question | more))
        executions = schema.executions
        waiting = update(executions).where(executions.c.id == execution_id)
        conn.execute(waiting.values(status="interrupted"))


def answers(site: Site, task_id: str) -> str | None:
    """Return the stored answer to a question."""
    table = schema.pending_tasks
    with writing(site.server) as conn:
        answer: str | None = conn.scalar(select(table.c.answer).where(table.c.task_id == task_id))
        return answer


@pytest.mark.parametrize(
    ("text", "status", "answer"),
    [
        ("/confirm_c41f09ab", "confirmed", "confirm"),
        ("  /cancel_d41f09ab\n", "cancelled", "cancel"),
    ],
)
async def test_a_command_answers_an_open_question(
    people: People,
    sender: Api,
    site: Site,
    gateway: FakeGateway,
    slug: str,
    text: str,
    status: str,
    answer: str,
) -> None:
    """Once; the chat is told, and the Idempotency-Key is ignored."""
    await build(people.olga, slug)
    execution_id = await people.olga.chat(slug, "hi")
    await people.olga.wait_end(execution_id)
    task_id = text.strip()[-8:]
    ask(site, execution_id, task_id)
    command = message(slug, text)

    first = await send(sender, command, idempotency_key="k")
    second = await send(sender, command, idempotency_key="k")

    assert (first.status_code, first.json()) == (200, {"status": status, "task_id": task_id})
    assert (second.status_code, second.json()) == (
        200,
        {"status": "not_found", "task_id": task_id},
    )
    assert "idempotent-replayed" not in second.headers
    assert answers(site, task_id) == answer
    words = {"credential_id": slug, "chat_id": "5512", "text": TEXTS[status], "file_ids": []}
    assert await gateway.wait_calls(1) == [("POST", "/api/v1/send", words)]
    assert gateway.tokens == ["Bearer send-token"]


async def test_an_expired_question_says_so_in_its_chat_only(
    people: People, sender: Api, site: Site, gateway: FakeGateway, slug: str
) -> None:
    """Another chat does not learn that there is one; an unknown one is not found either."""
    await build(people.olga, slug)
    execution_id = await people.olga.chat(slug, "hi")
    await people.olga.wait_end(execution_id)
    past = datetime.now(UTC) - timedelta(seconds=1)
    ask(site, execution_id, "0e0e0e0e", expires_at=past)
    ask(site, execution_id, "0f0f0f0f")

    async def status(task_id: str, chat_id: str = "5512") -> str:
        body = message(slug, f"/confirm_{task_id}", source={"chat_id": chat_id})
        answer = await send(sender, body)
        assert (answer.status_code, answer.json()["task_id"]) == (200, task_id)
        return str(answer.json()["status"])

    assert await status("0f0f0f0f", chat_id="1") == "not_found"
    assert await status("nothing") == "not_found"
    assert await status("0e0e0e0e", chat_id="1") == "not_found"
    assert await status("0e0e0e0e") == "expired"
    calls = await gateway.wait_calls(1)
    assert [call[2]["text"] for call in calls] == [TEXTS["expired"]]
    assert answers(site, "0f0f0f0f") is None


async def test_what_only_looks_like_a_command_is_a_message(
    people: People, sender: Api, slug: str
) -> None:
    """It starts an execution."""
    await build(people.olga, slug)

    for text in ("/confirm_", "/confirm c1", "confirm_c1", "/confirm_c1 please", "/confirm_ä-"):
        await accepted(sender, message(slug, text))
