"""Credentials that the message gateway keeps too. Contract: credentials.md "Gateway calls".

A real gateway answers on a socket; activating and deactivating: beyond.md §6.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from pipelit.net.egress import EgressPolicy
from pipelit.net.gateway import Gateway
from pipelit.net.http import HttpClient
from pipelit.store import Store, schema
from tests.kit.accounts import AccountServer, Caller, FakeProviders, account_server
from tests.kit.gateway import FakeGateway, gateway_server, refusal
from tests.kit.http_server import Answer
from tests.kit.people import ada, olga, otto, providers
from tests.kit.people import refusal as refused
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "store", "store_url"]

TOKEN = "adapter-token-0123456789"
BOT = {
    "name": "shop bot/1",
    "credential_type": "gateway",
    "detail": {"adapter_type": "telegram", "token": TOKEN, "config": {"poll": True}},
}
PATH = "/admin/credentials/shop%20bot%2F1"
UNAVAILABLE = (502, "Gateway unavailable.")


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """The gateway the server speaks to."""
    async with gateway_server() as running:
        yield running


@pytest.fixture
async def server(
    store: Store, tmp_path: Path, providers: FakeProviders, gateway: FakeGateway
) -> AsyncIterator[AccountServer]:
    """A server without users, with a gateway."""
    http = HttpClient(EgressPolicy.parse([], own_urls=[gateway.url]), "workflow")
    client = Gateway(http, url=f"{gateway.url}/", admin_token="admin-1", send_token="send-1")
    async with account_server(store, tmp_path, providers, gateway=client) as running:
        yield running
    await http.aclose()


async def create(caller: Caller, body: dict[str, Any] = BOT) -> int:
    answer = await caller.post("/credentials/", body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def total(caller: Caller) -> int:
    return int((await caller.get("/credentials/")).json()["total"])


async def test_a_new_credential_is_registered_inactive(olga: Caller, gateway: FakeGateway) -> None:
    """With its id, adapter, token and config, and the operator's own token."""
    await create(olga)
    await create(olga, {"name": "plain", "credential_type": "gateway"})

    assert gateway.calls == [
        (
            "POST",
            "/admin/credentials",
            {
                "id": "shop bot/1",
                "adapter": "telegram",
                "token": TOKEN,
                "active": False,
                "config": {"poll": True},
            },
        ),
        (
            "POST",
            "/admin/credentials",
            {"id": "plain", "adapter": "", "token": "", "active": False},
        ),
    ]
    assert gateway.tokens == ["Bearer admin-1"] * 2


async def test_other_types_are_none_of_the_gateways_business(
    olga: Caller, gateway: FakeGateway
) -> None:
    """Nothing is called for them."""
    credential_id = await create(olga, {"name": "N", "credential_type": "git"})
    await olga.patch(f"/credentials/{credential_id}/", {"detail": {"username": "o"}})
    await olga.delete(f"/credentials/{credential_id}/")

    assert gateway.calls == []


async def test_a_change_passes_on_what_it_names(olga: Caller, gateway: FakeGateway) -> None:
    """Only adapter, token and config concern the gateway; its id stays that of the creation."""
    credential_id = await create(olga)
    path = f"/credentials/{credential_id}/"
    gateway.calls.clear()

    for body in (
        {"name": "renamed"},
        {"detail": {"allowed_user_ids": "1,2", "api_key": "k"}},
        {"detail": {"token": "t2"}},
        {"detail": {"adapter_type": "generic", "config": None}},
    ):
        assert (await olga.patch(path, body)).status_code == 200

    assert gateway.calls == [
        ("PUT", PATH, {"token": "t2"}),
        ("PUT", PATH, {"adapter": "generic", "config": None}),
    ]


async def test_deleting_removes_it_there_first(olga: Caller, gateway: FakeGateway) -> None:
    """One that the gateway does not know counts as removed."""
    first, second = await create(olga), await create(olga)
    gateway.calls.clear()
    gateway.answers = [Answer(body=b"{}"), refusal(404, {"error": "unknown"})]

    for credential_id in (first, second):
        answer = await olga.delete(f"/credentials/{credential_id}/")
        assert (answer.status_code, answer.content) == (204, b"")

    assert gateway.calls == [("DELETE", PATH, None)] * 2
    assert await total(olga) == 0


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (refusal(409, {"error": "exists already"}), "Gateway API error 409: exists already"),
        (refusal(500), "Gateway API error 500: HTTP 500"),
        (refusal(400, {"error": {"code": 1}}), "Gateway API error 400: HTTP 400"),
        (refusal(403, ["error"]), "Gateway API error 403: HTTP 403"),
        (Answer(302, {"location": "http://127.0.0.1/"}), "Gateway API error 302: HTTP 302"),
    ],
)
async def test_what_the_gateway_refuses_is_not_changed_here(
    olga: Caller, gateway: FakeGateway, answer: Answer, detail: str
) -> None:
    """502 in its own words; create, change and delete alike."""
    credential_id = await create(olga)
    before = (await olga.get(f"/credentials/{credential_id}/")).json()
    path = f"/credentials/{credential_id}/"

    gateway.answers = [answer] * 3
    answers = [
        await olga.post("/credentials/", BOT),
        await olga.patch(path, {"name": "N", "detail": {"token": "t2"}}),
        await olga.delete(path),
    ]

    assert [refused(one) for one in answers] == [(502, detail)] * 3
    assert await total(olga) == 1
    assert (await olga.get(path)).json() == before


async def test_a_gateway_that_is_not_there_is_unavailable(
    ada: Caller, olga: Caller, store: Store, gateway: FakeGateway
) -> None:
    """The same when it hangs up without an answer."""
    credential_id = await create(olga)
    gateway.answers = [Answer(headers={"content-length": "5"})] * 4

    for word in ("activate", "deactivate"):
        assert refused(await olga.post(f"/credentials/{credential_id}/{word}/")) == UNAVAILABLE
    assert refused(await olga.delete(f"/credentials/{credential_id}/")) == UNAVAILABLE
    assert refused(await olga.post("/credentials/", BOT)) == UNAVAILABLE
    assert await total(olga) == 1


async def test_a_batch_is_deleted_whole_or_not_at_all(
    olga: Caller, otto: Caller, gateway: FakeGateway
) -> None:
    """The failing ones are named; a repetition finishes the work."""
    bots = [await create(olga, {**BOT, "name": f"bot-{number}"}) for number in range(3)]
    other = await create(otto)
    git = await create(olga, {"name": "N", "credential_type": "git"})
    gateway.calls.clear()
    gateway.refuse_path = "/admin/credentials/bot-1"
    body = {"ids": [*bots, other, git, 999]}

    failed = await olga.post("/credentials/batch-delete/", body)

    assert refused(failed) == (
        502,
        f"Failed to delete gateway credentials: {bots[1]}. Database unchanged.",
    )
    assert await total(olga) == 5
    assert {path for _, path, _ in gateway.calls} == {
        f"/admin/credentials/bot-{number}" for number in range(3)
    }
    gateway.refuse_path = None
    assert (await olga.post("/credentials/batch-delete/", body)).status_code == 204
    assert [one["id"] for one in (await olga.get("/credentials/")).json()["items"]] == [other]


@pytest.mark.parametrize("word", ["activate", "deactivate"])
async def test_activation_is_the_gateways_matter(
    ada: Caller, olga: Caller, otto: Caller, gateway: FakeGateway, word: str
) -> None:
    """Forwarded for creator and admin; its JSON object is the answer."""
    credential_id = await create(olga)
    path = f"/credentials/{credential_id}/{word}/"
    gateway.calls.clear()
    shown = b'{"id": "shop bot/1", "active": 1}'
    gateway.answers = [Answer(body=shown), Answer(body=shown), Answer(204), Answer(body=b"[1]")]

    answers = [await caller.post(path) for caller in (olga, ada, olga, olga)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"id": "shop bot/1", "active": 1}),
        (200, {"id": "shop bot/1", "active": 1}),
        (200, {}),
        (200, {}),
    ]
    assert gateway.calls == [("PATCH", f"{PATH}/{word}", None)] * 4
    assert refused(await otto.post(path)) == (
        403,
        "Only the creator or an admin can modify this credential.",
    )
    gateway.answers = [refusal(400, {"error": "no token"})]
    assert refused(await olga.post(path)) == (502, "Gateway API error 400: no token")


async def test_only_gateway_credentials_can_be_activated(olga: Caller) -> None:
    """An unknown one and one of another type are both not found."""
    git = await create(olga, {"name": "N", "credential_type": "git"})

    for credential_id in (git, 999):
        for word in ("activate", "deactivate"):
            answer = await olga.post(f"/credentials/{credential_id}/{word}/")
            assert refused(answer) == (404, "Gateway credential not found.")


async def test_without_a_gateway_credentials_are_only_ours(
    store: Store, tmp_path: Path, providers: FakeProviders, gateway: FakeGateway
) -> None:
    """Stored, changed and deleted without a call; activating needs one."""
    async with account_server(store, tmp_path, providers) as server:
        await server.setup()
        caller = await server.add_user("olga")
        credential_id = await create(caller)

        changed = await caller.patch(f"/credentials/{credential_id}/", {"detail": {"token": "t2"}})

        assert changed.status_code == 200
        answer = await caller.post(f"/credentials/{credential_id}/activate/")
        assert refused(answer) == UNAVAILABLE
        answer = await caller.post("/credentials/batch-delete/", {"ids": [credential_id]})
        assert answer.status_code == 204
        assert await total(caller) == 0


async def test_what_cannot_be_stored_is_taken_back(
    olga: Caller, store: Store, gateway: FakeGateway
) -> None:
    """The gateway does not keep a credential that we do not have."""
    store.stop()

    assert refused(await olga.post("/credentials/", BOT)) == (503, "Server is shutting down.")

    assert [(method, path) for method, path, _ in gateway.calls] == [
        ("POST", "/admin/credentials"),
        ("DELETE", PATH),
    ]


async def test_the_id_of_the_gateway_outlives_a_rename(
    olga: Caller, store: Store, gateway: FakeGateway
) -> None:
    """`gateway_credential_id` is shown, and read-only."""
    credential_id = await create(olga)

    body = {"name": "other", "detail": {"gateway_credential_id": "stolen"}}
    changed = (await olga.patch(f"/credentials/{credential_id}/", body)).json()

    assert changed["detail"]["gateway_credential_id"] == "shop bot/1"
    table = schema.credentials
    owner = update(table).values(created_by_id=None)
    await store.write(lambda conn: conn.execute(owner).rowcount)
    assert refused(await olga.delete(f"/credentials/{credential_id}/"))[0] == 403
