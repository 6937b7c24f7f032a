"""Credentials over a real socket: the object and who may. Contract: credentials.md."""

import re
from typing import Any

import pytest

from tests.kit.accounts import AccountServer, Caller
from tests.kit.people import ada, olga, otto, problems, providers, refusal, server
from tests.kit.store import migrated, store, store_url

__all__ = ["ada", "migrated", "olga", "otto", "providers", "server", "store", "store_url"]

KEY = "sk-demo-0123456789abcdef"
SHOWN_KEY = "sk-d****cdef"
LLM = {"name": "Demo model", "credential_type": "llm", "detail": {"api_key": KEY}}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
NOT_FOUND = (404, "Credential not found.")
NOT_YOURS = (403, "Only the creator or an admin can modify this credential.")
NOT_AN_LLM = (404, "LLM credential not found.")


async def create(caller: Caller, body: dict[str, Any] = LLM) -> dict[str, Any]:
    answer = await caller.post("/credentials/", body)
    assert answer.status_code == 201
    created: dict[str, Any] = answer.json()
    return created


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
                r"body.detail.base_url: must match ^(https?://[^\s/?#@\\]+(/[^\s?#]*)?)?$",
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
