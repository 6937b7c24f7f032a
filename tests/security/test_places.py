"""What is only for people at the server's machine, or only for pages of its own."""

import json
from typing import Any

import pyotp
import pytest
import trio

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.site import People, Site
from tests.kit.ws_client import ws_client
from tests.security.lab import attack

pytestmark = pytest.mark.slow

NOT_HERE = "MFA reset only allowed from localhost."


@pytest.fixture
async def victim(people: People, slug: str) -> Api:
    """A user with a second factor, whose API key was stolen."""
    name, password = slug[-100:], "correct horse battery"
    await people.ada.post("/users/", {"username": name, "password": password})
    login = {"username": name, "password": password}
    key = (await people.anyone.post("/auth/token/", login))["key"]
    victim = Api(people.anyone.http, key)
    secret = (await victim.post("/auth/mfa/setup/"))["secret"]
    await victim.post("/auth/mfa/verify/", {"code": pyotp.TOTP(secret).now()})
    return victim


async def has_mfa(victim: Api) -> bool:
    return bool((await victim.get("/auth/mfa/status/"))["mfa_enabled"])


@pytest.mark.parametrize("header", ["forwarded", "x_forwarded_for", "x_real_ip"])
async def test_who_comes_through_a_proxy_is_not_here(victim: Api, header: str) -> None:
    """Whatever the header says."""
    answer = await victim.call("POST", "/auth/mfa/reset/", **{header: "127.0.0.1"})

    assert (answer.status_code, answer.json()) == (403, {"detail": NOT_HERE})
    assert await has_mfa(victim)


async def test_an_agent_is_not_at_this_machine(
    site: Site, victim: Api, provider: ModelServer, slug: str
) -> None:
    """`platform_api` calls from loopback, for somebody who may be anywhere."""
    credential = await victim.add_model(provider.url)
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "start": ("trigger_manual", {}),
        "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
        "api": ("platform_api", {}),
        "agent": ("agent", {}),
    }
    edges = "start -> agent, model -> agent : llm, api -> agent : tool"
    await victim.build(slug, nodes, edges)
    arguments = {"method": "POST", "path": "/api/v1/auth/mfa/reset/", "api_key": victim.key}
    call = {"name": "platform_api", "arguments": json.dumps(arguments)}
    tool_call = {"index": 0, "id": "c1", "type": "function", "function": call}
    run = await victim.run(slug)

    first = await provider.next_call()
    await first.stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": [tool_call]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ]
    )
    second = await provider.next_call()
    told = second.body["messages"][-1]["content"]
    await second.say("Done.")

    await victim.wait_end(run)
    assert NOT_HERE in told
    assert await has_mfa(victim)


@pytest.mark.parametrize("end", ["?x=", "#"])
async def test_a_credential_does_not_call_this_server(site: Site, victim: Api, end: str) -> None:
    """The path of a model call cannot be made a query of something else."""
    detail = {
        "provider_type": "openai_compatible",
        "api_key": victim.key,
        "base_url": f"{site.url}/api/v1/auth/mfa/reset/{end}",
    }
    body = {"name": "x", "credential_type": "llm", "detail": detail}

    answer = await victim.call("POST", "/credentials/", body)

    assert answer.status_code == 422
    assert await has_mfa(victim)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:8000",
        "http://evil.example#127.0.0.1",
        "null",
        "",
        "http://[::1",
        "file://",
        "chrome-extension://127",
    ],
)
async def test_a_page_of_another_site_opens_no_socket(site: Site, origin: str) -> None:
    """Not even with a key; nothing is sent to it."""
    async with ws_client(site.url, token=site.olga, origin=origin) as socket:
        assert await socket.hear_close() == (1008, "Origin not allowed")


@pytest.mark.parametrize("origin", ["http://127.0.0.1", "http://localhost:5173", "http://[::1]:1"])
async def test_a_page_of_this_machine_opens_one(site: Site, origin: str) -> None:
    """On any port: so does whoever develops one."""
    async with ws_client(site.url, token=site.olga, origin=origin) as socket:
        await socket.subscribe("workflow:any")


async def test_a_private_workflow_handles_no_errors_of_others(people: People, slug: str) -> None:
    """Who named it while it was public does not start it any more."""
    handler = await people.olga.build(
        f"{slug}-handler",
        {
            "start": ("trigger_manual", {}),
            "say": ("reply_chat", {"extra_config": {"message": "s3cr3t"}}),
        },
        "start -> say",
        is_public=True,
    )
    await people.otto.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "fail": ("switch", {"extra_config": {"rules": [{"id": "a", "operator": "x"}]}}),
        },
        "start -> fail",
        error_handler_workflow_id=handler["id"],
    )
    path = f"/executions/?workflow_slug={slug}-handler&limit=0"
    await attack(people.otto, slug)
    with trio.fail_after(10):
        while not (await people.olga.get(path))["total"]:
            await trio.lowlevel.checkpoint()  # started after the end of the other

    await people.olga.call("PATCH", f"/workflows/{slug}-handler/", {"is_public": False})
    for _ in range(2):
        await attack(people.otto, slug)

    assert (await people.olga.get(path))["total"] == 1
