"""Credentials over a real socket, in the order of the section. Contract: credentials.md."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipelit.store import Store
from tests.kit.accounts import AccountServer, Caller, FakeProviders, account_server
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "store", "store_url"]

KEY = "sk-demo-0123456789abcdef"
SHOWN_KEY = "sk-d****cdef"
LLM = {"name": "Demo model", "credential_type": "llm", "detail": {"api_key": KEY}}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
NOT_FOUND = (404, "Credential not found.")
NOT_YOURS = (403, "Only the creator or an admin can modify this credential.")
NOT_AN_LLM = (404, "LLM credential not found.")


@pytest.fixture
def providers() -> FakeProviders:
    return FakeProviders()


@pytest.fixture
async def server(
    store: Store, tmp_path: Path, providers: FakeProviders
) -> AsyncIterator[AccountServer]:
    async with account_server(store, tmp_path, providers) as running:
        yield running


@pytest.fixture
async def ada(server: AccountServer) -> Caller:
    """The admin."""
    return await server.setup()


@pytest.fixture
async def olga(ada: Caller, server: AccountServer) -> Caller:
    """A normal user."""
    return await server.add_user("olga")


@pytest.fixture
async def otto(olga: Caller, server: AccountServer) -> Caller:
    """Another normal user."""
    return await server.add_user("otto")


def refusal(answer: httpx2.Response) -> tuple[int, object]:
    assert set(answer.json()) == {"detail"}
    return answer.status_code, answer.json()["detail"]


def problems(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 422
    return answer.json()["detail"]["validation_errors"]


async def create(caller: Caller, body: dict[str, Any] = LLM) -> dict[str, Any]:
    answer = await caller.post("/credentials/", body)
    assert answer.status_code == 201
    return answer.json()


async def test_a_credential_is_shown_field_by_field(olga: Caller) -> None:
    """The example of the section: secrets masked, the rest as sent, defaults filled in."""
    sent = {
        "name": "Local vLLM",
        "credential_type": "llm",
        "detail": {
            "api_key": "vl-92ac77d0e1f54b08",
            "base_url": "http://10.0.0.8:8001/v1/",
            "custom_headers": {"X-Team": "ops", "X-Api-Token": "t-1234"},
        },
    }

    created = await create(olga, sent)

    instant = created["created_at"]
    assert INSTANT.fullmatch(instant)
    assert created == {
        "id": 1,
        "name": "Local vLLM",
        "credential_type": "llm",
        "detail": {
            "provider_type": "openai_compatible",
            "api_key": "vl-9****4b08",
            "base_url": "http://10.0.0.8:8001/v1/",
            "organization_id": "",
            "custom_headers": {"X-Team": "ops", "X-Api-Token": "****"},
        },
        "created_at": instant,
        "updated_at": instant,
    }
    assert (await olga.get("/credentials/1/")).json() == created


@pytest.mark.parametrize(
    ("kind", "sent", "shown"),
    [
        (
            "gateway",
            {"api_key": KEY, "token": KEY, "config": {"a": 1}, "gateway_credential_id": "x"},
            {
                "api_key": SHOWN_KEY,
                "allowed_user_ids": "",
                "adapter_type": "",
                "gateway_credential_id": "N",
            },
        ),
        (
            "git",
            {"access_token": KEY, "ssh_private_key": KEY, "credential_type": "ssh"},
            {
                "provider": "github",
                "credential_type": "ssh",
                "username": "",
                "ssh_private_key": "****",
                "access_token": SHOWN_KEY,
                "webhook_secret": "",
            },
        ),
        (
            "tool",
            {"config": {"url": "http://x", "apiKey": KEY, "deep": [{"Cookie": "c"}]}},
            {
                "tool_type": "api",
                "config": {"url": "http://x", "apiKey": SHOWN_KEY, "deep": [{"Cookie": "****"}]},
                "is_preferred": False,
            },
        ),
    ],
)
async def test_each_type_has_its_detail(
    olga: Caller, kind: str, sent: dict[str, Any], shown: dict[str, Any]
) -> None:
    """Every type's fields are shown with defaults and masks; write-only ones are not."""
    created = await create(olga, {"name": "N", "credential_type": kind, "detail": sent})

    assert created["detail"] == shown


@pytest.mark.parametrize("extra", [{}, {"detail": None}, {"detail": {}}])
async def test_detail_is_always_an_object(olga: Caller, extra: dict[str, Any]) -> None:
    """Absent and null are the defaults of the type."""
    created = await create(olga, {"name": "N", "credential_type": "llm", **extra})

    assert created["detail"] == {
        "provider_type": "openai_compatible",
        "api_key": "",
        "base_url": "",
        "organization_id": "",
        "custom_headers": {},
    }


async def test_unknown_and_server_owned_fields_have_no_effect(olga: Caller) -> None:
    """They are ignored, never stored."""
    body = {**LLM, "id": 77, "created_at": "x", "what": 1, "detail": {"api_key": KEY, "what": 1}}

    created = await create(olga, body)

    assert created["id"] == 1
    assert "what" not in created["detail"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["body.name: field required", "body.credential_type: field required"]),
        (
            {"name": " ", "credential_type": "x", "detail": []},
            [
                "body.name: must not be blank",
                "body.credential_type: must be one of: llm, gateway, git, tool",
                "body.detail: must be an object",
            ],
        ),
        (
            {
                "name": "x" * 256,
                "credential_type": "llm",
                "detail": {
                    "provider_type": "acme",
                    "api_key": 5,
                    "base_url": "http://user:pw@host/",
                    "organization_id": None,
                    "custom_headers": {"X-A": "a\nb", "X-B": 1},
                },
            },
            [
                "body.name: must be at most 255 characters",
                "body.detail.provider_type: must be one of: "
                "openai_compatible, anthropic, openai, glm",
                "body.detail.api_key: must be a string",
                r"body.detail.base_url: must match ^(https?://[^\s/?#@\\]+([/?#]\S*)?)?$",
                "body.detail.organization_id: must not be null",
                "body.detail.custom_headers.X-A: must be valid text",
                "body.detail.custom_headers.X-B: must be a string",
            ],
        ),
        (
            {"name": "N", "credential_type": "tool", "detail": {"config": [], "is_preferred": 1}},
            [
                "body.detail.config: must be an object",
                "body.detail.is_preferred: must be a boolean",
            ],
        ),
        (
            {"name": "N", "credential_type": "llm", "detail": {"api_key": "a\0"}},
            ["body.detail.api_key: must be valid text"],
        ),
    ],
)
async def test_all_problems_are_told_together(
    olga: Caller, body: dict[str, Any], found: list[str]
) -> None:
    """Those of the detail too, and no credential comes of it."""
    assert problems(await olga.post("/credentials/", body)) == found
    assert (await olga.get("/credentials/")).json() == {"items": [], "total": 0}


async def test_everybody_sees_all_credentials_masked(
    ada: Caller, olga: Caller, otto: Caller
) -> None:
    """The list is by id, and the same for all."""
    created = [await create(caller) for caller in (olga, ada)]

    for caller in (ada, olga, otto):
        assert (await caller.get("/credentials/")).json() == {"items": created, "total": 2}
        assert (await caller.get("/credentials/2/")).json() == created[1]


async def test_the_list_is_paged(olga: Caller) -> None:
    """`total` counts everything."""
    for number in range(3):
        await create(olga, {**LLM, "name": str(number)})

    page = (await olga.get("/credentials/?limit=1&offset=1")).json()
    none = (await olga.get("/credentials/?limit=0")).json()

    assert ([item["name"] for item in page["items"]], page["total"]) == (["1"], 3)
    assert none == {"items": [], "total": 3}
    assert problems(await olga.get("/credentials/?limit=1001&offset=x")) == [
        "query.limit: must be <= 1000",
        "query.offset: must be an integer",
    ]


async def test_only_creator_and_admin_change_and_delete(
    ada: Caller, olga: Caller, otto: Caller
) -> None:
    """Others get 403 for both, whatever they send, as long as it follows the schema."""
    await create(olga)

    assert refusal(await otto.patch("/credentials/1/", {})) == NOT_YOURS
    assert refusal(await otto.patch("/credentials/1/", {"detail": {"api_key": 1}})) == NOT_YOURS
    assert refusal(await otto.delete("/credentials/1/")) == NOT_YOURS
    for caller, name in ((olga, "A"), (ada, "B")):
        assert (await caller.patch("/credentials/1/", {"name": name})).json()["name"] == name
    assert (await ada.delete("/credentials/1/")).status_code == 204


async def test_an_agent_user_changes_what_its_creator_made(
    server: AccountServer, olga: Caller, otto: Caller
) -> None:
    """It acts for its creator as a normal user, also when that is an admin."""
    olgas_agent = await server.add_user("agent_a", kind="agent", created_by_id=2)
    adas_agent = await server.add_user("agent_b", kind="agent", created_by_id=1)
    await create(olga)

    assert refusal(await adas_agent.patch("/credentials/1/", {"name": "X"})) == NOT_YOURS
    assert (await olgas_agent.patch("/credentials/1/", {"name": "X"})).status_code == 200


@pytest.mark.parametrize("credential_id", [0, -1, 99, 2**63 - 1])
async def test_an_unknown_credential_is_not_found(olga: Caller, credential_id: int) -> None:
    """For every method, before rights and rules."""
    path = f"/credentials/{credential_id}/"

    assert refusal(await olga.get(path)) == NOT_FOUND
    assert refusal(await olga.patch(path, {"detail": {"api_key": 1}})) == NOT_FOUND
    assert refusal(await olga.delete(path)) == NOT_FOUND
    assert refusal(await olga.post(f"{path}test/")) == NOT_AN_LLM
    assert refusal(await olga.get(f"{path}models/")) == NOT_AN_LLM


async def test_an_id_is_an_integer(olga: Caller) -> None:
    """Anything else is a problem of the path."""
    assert problems(await olga.get("/credentials/x/")) == ["path.credential_id: must be an integer"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/credentials/"),
        ("POST", "/credentials/"),
        ("GET", "/credentials/1/"),
        ("PATCH", "/credentials/1/"),
        ("DELETE", "/credentials/1/"),
        ("POST", "/credentials/batch-delete/"),
        ("POST", "/credentials/1/test/"),
        ("GET", "/credentials/1/models/"),
    ],
)
async def test_nobody_gets_in_without_a_key(server: AccountServer, method: str, path: str) -> None:
    """Every endpoint of the section needs one."""
    answer = await server.client.request(method, f"/api/v1{path}")

    assert refusal(answer) == (401, "Invalid or missing API key.")


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
