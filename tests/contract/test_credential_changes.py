"""Credentials over a real socket: change, delete, test, models. Contract: credentials.md."""

from pathlib import Path
from typing import Any

import pytest

from pipelit.net.egress import EgressPolicy
from pipelit.net.http import HttpClient
from pipelit.store import Store
from tests.kit.accounts import Caller, FakeProviders, RealProviders, account_server
from tests.kit.model_server import model_server
from tests.kit.people import ada, olga, otto, problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "server", "store", "store_url"]

KEY = "sk-demo-0123456789abcdef"
SHOWN_KEY = "sk-d****cdef"
LLM = {"name": "Demo model", "credential_type": "llm", "detail": {"api_key": KEY}}
NOT_FOUND = (404, "Credential not found.")
NOT_AN_LLM = (404, "LLM credential not found.")


async def create(caller: Caller, body: dict[str, Any] = LLM) -> dict[str, Any]:
    answer = await caller.post("/credentials/", body)
    assert answer.status_code == 201
    created: dict[str, Any] = answer.json()
    return created


async def test_the_mask_sent_back_leaves_the_secret(olga: Caller, providers: FakeProviders) -> None:
    """Name changed, key unchanged; an empty text clears it."""
    await create(olga)

    changed = await olga.patch("/credentials/1/", {"name": "V", "detail": {"api_key": SHOWN_KEY}})
    await olga.post("/credentials/1/test/")
    cleared = await olga.patch("/credentials/1/", {"detail": {"api_key": ""}})
    await olga.post("/credentials/1/test/")

    assert (changed.status_code, changed.json()["name"]) == (200, "V")
    assert changed.json()["detail"]["api_key"] == SHOWN_KEY
    assert cleared.json()["detail"]["api_key"] == ""
    assert [spec.api_key for spec in providers.asked] == [KEY, ""]


@pytest.mark.parametrize(
    "body", [{}, {"detail": {}}, {"detail": None}, {"credential_type": "git", "id": 5}]
)
async def test_what_names_no_field_changes_nothing(olga: Caller, body: dict[str, Any]) -> None:
    """200, the object as it was, `updated_at` too; the type is fixed."""
    created = await create(olga)

    answer = await olga.patch("/credentials/1/", body)

    assert (answer.status_code, answer.json()) == (200, created)


async def test_naming_a_present_value_is_an_update(olga: Caller) -> None:
    """`updated_at` moves, `created_at` does not."""
    created = await create(olga)

    changed = (await olga.patch("/credentials/1/", {"name": created["name"]})).json()

    assert changed["updated_at"] > created["updated_at"]
    assert {**changed, "updated_at": created["updated_at"]} == created


async def test_detail_is_merged_field_by_field(olga: Caller, providers: FakeProviders) -> None:
    """Headers are replaced whole; a masked header keeps its value."""
    headers = {"X-Token": KEY, "X-Team": "ops"}
    await create(olga, {**LLM, "detail": {"api_key": KEY, "custom_headers": headers}})

    sent = {"organization_id": "o", "custom_headers": {"X-Token": SHOWN_KEY}}
    changed = (await olga.patch("/credentials/1/", {"detail": sent})).json()["detail"]
    await olga.post("/credentials/1/test/")

    assert changed["organization_id"] == "o"
    assert changed["api_key"] == SHOWN_KEY
    assert changed["custom_headers"] == {"X-Token": SHOWN_KEY}
    assert providers.asked[0].custom_headers == {"X-Token": KEY}


async def test_a_change_is_checked_by_the_rules_of_the_type(olga: Caller) -> None:
    """All problems at once; nothing is changed."""
    created = await create(olga)
    body = {"name": "N", "detail": {"api_key": None, "custom_headers": 5, "config": 7}}

    assert problems(await olga.patch("/credentials/1/", body)) == [
        "body.detail.api_key: must not be null",
        "body.detail.custom_headers: must be an object",
    ]
    assert problems(await olga.patch("/credentials/1/", {"name": None, "detail": 5})) == [
        "body.name: must not be null",
        "body.detail: must be an object",
    ]
    assert (await olga.get("/credentials/1/")).json() == created


async def test_retargeting_by_another_person_clears_the_key(
    ada: Caller, olga: Caller, providers: FakeProviders
) -> None:
    """An admin who does not know the key cannot send it elsewhere; its creator may."""
    away = {"detail": {"base_url": "https://elsewhere.example.com/v1"}}
    for _ in range(3):
        await create(olga)

    masked = {"detail": {**away["detail"], "api_key": SHOWN_KEY}}
    by_admin = [
        await ada.patch("/credentials/1/", away),
        await ada.patch("/credentials/2/", masked),
    ]
    by_creator = await olga.patch("/credentials/3/", away)

    assert [answer.json()["detail"]["api_key"] for answer in by_admin] == ["", ""]
    assert by_creator.json()["detail"]["api_key"] == SHOWN_KEY


async def test_a_deleted_credential_is_gone(olga: Caller) -> None:
    """204 without a body, then 404; its id is not used again."""
    await create(olga)

    answer = await olga.delete("/credentials/1/")

    assert (answer.status_code, answer.content) == (204, b"")
    assert refusal(await olga.delete("/credentials/1/")) == NOT_FOUND
    assert (await create(olga))["id"] == 2


async def test_a_batch_deletes_what_the_caller_may(olga: Caller, otto: Caller) -> None:
    """Unknown ids, duplicates and other people's credentials are no error."""
    for caller in (olga, otto, olga):
        await create(caller)

    answer = await olga.post("/credentials/batch-delete/", {"ids": [1, 2, 1, 99]})
    empty = await olga.post("/credentials/batch-delete/", {"ids": []})

    assert (answer.status_code, answer.content, empty.status_code) == (204, b"", 204)
    left = (await olga.get("/credentials/")).json()["items"]
    assert [item["id"] for item in left] == [2, 3]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, "body.ids: field required"),
        ({"ids": None}, "body.ids: must not be null"),
        ({"ids": 5}, "body.ids: must be an array"),
        ({"ids": ["5"]}, "body.ids[0]: must be an integer"),
        ({"ids": [1, True]}, "body.ids[1]: must be an integer"),
        ({"ids": list(range(1001))}, "body.ids: must have at most 1000 items"),
    ],
)
async def test_a_batch_is_a_list_of_ids(olga: Caller, body: dict[str, Any], found: str) -> None:
    """Strictly, and of bounded length."""
    assert problems(await olga.post("/credentials/batch-delete/", body)) == [found]


async def test_a_test_tells_what_the_provider_said(
    olga: Caller, otto: Caller, providers: FakeProviders
) -> None:
    """Always 200; everybody may; nothing is stored."""
    created = await create(olga)

    good = await otto.post("/credentials/1/test/")
    providers.error = "Authentication failed - invalid API key"
    bad = await otto.post("/credentials/1/test/")

    assert (good.status_code, good.json()) == (200, {"ok": True, "error": ""})
    assert (bad.status_code, bad.json()) == (200, {"ok": False, "error": providers.error})
    assert (await olga.get("/credentials/1/")).json() == created


async def test_models_are_a_flat_array(olga: Caller, providers: FakeProviders) -> None:
    """`name` equals `id`; no models are an empty array."""
    await create(olga)

    none = await olga.get("/credentials/1/models/")
    providers.models = ["demo-1", "demo-2"]
    some = await olga.get("/credentials/1/models/")

    assert (none.status_code, none.json()) == (200, [])
    assert some.json() == [
        {"id": "demo-1", "name": "demo-1"},
        {"id": "demo-2", "name": "demo-2"},
    ]


@pytest.mark.parametrize("kind", ["gateway", "git", "tool"])
async def test_only_llm_credentials_are_tried(
    olga: Caller, providers: FakeProviders, kind: str
) -> None:
    """Any other type is not there, and nobody is called."""
    await create(olga, {"name": "N", "credential_type": kind})

    assert refusal(await olga.post("/credentials/1/test/")) == NOT_AN_LLM
    assert refusal(await olga.get("/credentials/1/models/")) == NOT_AN_LLM
    assert not providers.asked


async def test_a_provider_is_asked_with_the_stored_key(store: Store, tmp_path: Path) -> None:
    """The whole way: encrypted, decrypted, sent to the base URL, and nothing of it shown."""
    http = HttpClient(EgressPolicy(), "provider")
    async with (
        model_server("demo-2", "demo-1") as provider,
        account_server(store, tmp_path, RealProviders(http)) as own_server,
    ):
        caller = await own_server.setup()
        await create(caller, {**LLM, "detail": {"api_key": KEY, "base_url": f"{provider.url}/"}})

        test = await caller.post("/credentials/1/test/")
        models = await caller.get("/credentials/1/models/")
        provider.models_status = 401
        refused = await caller.post("/credentials/1/test/")
        await http.aclose()

    assert test.json() == {"ok": True, "error": ""}
    assert [model["id"] for model in models.json()] == ["demo-1", "demo-2"]
    assert refused.json() == {"ok": False, "error": "Authentication failed - invalid API key"}
    assert {asked.path for asked in provider.requests} == {"/v1/models"}
    assert {asked.headers["authorization"] for asked in provider.requests} == {f"Bearer {KEY}"}
