"""Planted secrets are found nowhere but where they were sent.

A whole life of a server: accounts, a second factor, credentials of every type, a chat with an agent
that has tools, requests with secret headers, failing nodes, exports, events over WebSocket, the
command line. Then everything it has written or said is searched, in three spellings. The key file
of the data directory is the one place for its key; backups are copies of the database.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyotp
import pytest

from pipelit.clock import Clock
from tests.kit.api import Api, http_client
from tests.kit.http_server import Answer, Seen, serve
from tests.kit.model_server import ModelCall, model_server
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import run_site
from tests.kit.ws_client import ws_client

pytestmark = pytest.mark.slow

PLANTED = {
    "password": "canary password Ql7+/x",
    "wrong password": "canary wrong Zr3+/y",
    "model key": "sk-canary-Mk4w9/+TqLr28XvZ",
    "model header": "canary-header-Vb5+/UjWn61s",
    "git token": "ghp_canaryG7h2+/KdLm93",
    "git key": "-----BEGIN KEY----- canaryS5+/h1",
    "git webhook": "canary-hook-Yw8+/RtBc27",
    "tool key": "canary-tool-Nf6+/QzPx45",
    "step header": "Bearer canary-step-Hd2+/LkJg87",
    "metrics token": "canary-metrics-Cx9+/WqEr31",
    "gateway token": "canary-gateway-Ds1+/AzSx64",
}
DATABASE = {"db.sqlite3", "db.sqlite3-wal"}
DECLARED = {
    "step header": {*DATABASE, "workflow export canary"},
    "agent's key": DATABASE,
}
"""What SECURITY.md says: a node's config is no secret, and an agent's own key stands in the
progress of its run, which is kept to take it up after a crash."""

ENVIRON = {
    "PIPELIT_METRICS_TOKEN": PLANTED["metrics token"],
    "PIPELIT_GATEWAY_INBOUND_TOKEN": PLANTED["gateway token"],
    "PIPELIT_FIELD_ENCRYPTION_KEY": base64.urlsafe_b64encode(b"canary-key" * 3 + b"01").decode(),
    "PIPELIT_EGRESS_ALLOW": "127.0.0.0/8",
    "PIPELIT_LOG_LEVEL": "DEBUG",
}  # fmt: skip
CREDENTIALS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "git",
        {
            "access_token": PLANTED["git token"],
            "ssh_private_key": PLANTED["git key"],
            "webhook_secret": PLANTED["git webhook"],
        },
    ),
    ("tool", {"tool_type": "searxng", "config": {"api_key": PLANTED["tool key"]}}),
)


def spellings(secret: str) -> Iterator[bytes]:
    """Yield a secret plain, in base64, and encoded for URLs and JSON."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    for shift in range(3):  # base64 of a text that holds it, whatever stands before
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[4 if shift else 0 : len(coded) // 4 * 4 - 4]


class Story:
    """What the server has said, and to whom what was told."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.secrets = dict(PLANTED)
        self.said: dict[str, bytes] = {}

    def found(self) -> list[tuple[str, str]]:
        """Return which secret is where."""
        places = self.said | {
            str(path.relative_to(self.server.data)): path.read_bytes()
            for path in self.server.data.rglob("*")
            if path.is_file()
        }
        places["log"] = self.server.log.read_bytes()
        return [
            (secret, place)
            for secret, value in self.secrets.items()
            for place, content in places.items()
            if place not in DECLARED.get(secret, ())
            if any(spelling in content for spelling in spellings(value))
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, str]]:
    """A server that was given secrets, and its admin's key."""
    process = ServerProcess(tmp_path_factory.mktemp("canary"), free_port(), ENVIRON)
    with run_site(process) as site:
        yield process, site.ada


@pytest.fixture
async def api(server: tuple[ServerProcess, str]) -> AsyncIterator[Api]:
    """The admin."""
    async with http_client(server[0].url) as http:
        yield Api(http, server[1])


async def test_no_planted_secret_leaves_its_place(
    server: tuple[ServerProcess, str], api: Api
) -> None:
    """Neither database nor log, event, export, error or command line has one."""
    story = Story(server[0])
    story.secrets |= {"admin's key": server[1], "env key": ENVIRON["PIPELIT_FIELD_ENCRYPTION_KEY"]}
    await live_through_accounts(story, api)
    async with model_server() as provider:
        await live_through_runs(story, api, provider)
    for path in (
        "system/audit/",
        "system/supervision/",
        "credentials/",
        "executions/",
        "settings/",
    ):
        story.said[path] = (await api.call("GET", f"/{path}")).content
    story.said["metrics"] = (await api.http.get("/metrics")).content
    story.said |= command_line(story.server, server[1])

    assert story.found() == []


async def live_through_accounts(story: Story, api: Api) -> None:
    """Log in rightly and wrongly, with a second factor; make keys and credentials."""
    eve = {"username": "eve", "password": PLANTED["password"]}
    await api.post("/users/", eve)
    wrong = {**eve, "password": PLANTED["wrong password"]}
    typed = {**eve, "username": PLANTED["wrong password"]}
    for body in (wrong, typed):
        story.said[f"refusal {len(story.said)}"] = (
            await api.call("POST", "/auth/token/", body)
        ).content
    key = (await api.post("/auth/token/", eve))["key"]
    caller = Api(api.http, key)
    story.secrets |= {"session key": key}
    story.secrets["made key"] = (await caller.post("/users/me/keys", {"name": "ci"}))["key"]
    story.secrets["totp"] = (await caller.post("/auth/mfa/setup/"))["secret"]
    code = pyotp.TOTP(story.secrets["totp"]).at(Clock().now())
    await caller.post("/auth/mfa/verify/", {"code": code})
    for kind, detail in CREDENTIALS:
        body = {"name": kind, "credential_type": kind, "detail": detail}
        story.said[kind] = (await api.call("POST", "/credentials/", body)).content


async def live_through_runs(story: Story, api: Api, provider: Any) -> None:
    """Chat with an agent whose tools see secrets, and let a request with a secret header fail."""
    detail = {
        "provider_type": "openai_compatible",
        "api_key": PLANTED["model key"],
        "base_url": provider.url,
        "custom_headers": {"X-Auth-Token": PLANTED["model header"]},
    }
    body = {"name": "model", "credential_type": "llm", "detail": detail}
    credential = (await api.post("/credentials/", body))["id"]
    async with serve(echo) as target, ws_client(story.server.url, token=api.key) as socket:
        nodes: Mapping[str, tuple[str, Mapping[str, Any]]] = {
            "t": ("trigger_chat", {}),
            "m": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
            "ag": ("agent", {}),
            "account": ("create_agent_user", {}),
            "ask": ("http_request", request_to(target.url)),
            "start": ("trigger_manual", {}),
            "step": ("http_request", request_to("http://127.0.0.1:1/closed")),
        }
        edges = "t -> ag, m -> ag : llm, account -> ag : tool, ask -> ag : tool, start -> step"
        await api.build("canary", nodes, edges)
        await socket.subscribe("workflow:canary")
        chat = await api.chat("canary", "go")
        await call_tool(await provider.next_call(), "create_agent_user", {"purpose": "p"})
        second = await provider.next_call()
        story.secrets["agent's key"] = key_in(second)
        await call_tool(second, "http_request", {"url": target.url})
        refusing = await provider.next_call()
        await refusing.respond(401, {"error": {"message": f"no: {PLANTED['model key']}"}})
        await api.wait_end(chat)
        failed = await api.run("canary")
        await api.wait_end(failed)
        story.said["socket"] = json.dumps(await socket.hear_rest()).encode()
    for execution_id in (chat, failed):
        for part in ("", "logs/", "events/"):
            path = f"/executions/{execution_id}/{part}"
            story.said[path] = (await api.call("GET", path)).content


def request_to(url: str) -> dict[str, Any]:
    return {"extra_config": {"url": url, "headers": {"Authorization": PLANTED["step header"]}}}


def echo(_request: Seen) -> Answer:
    return Answer(body=b"pong")


async def call_tool(call: ModelCall, name: str, arguments: Mapping[str, str]) -> None:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"index": 0, "id": f"c-{name}", "type": "function", "function": function}]
    delta = {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    await call.stream(
        [delta, end, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}]
    )


def key_in(call: ModelCall) -> str:
    """Return the key that the agent's model was given."""
    (result,) = [m["content"] for m in call.body["messages"] if m["role"] == "tool"]
    key: str = json.loads(result)["api_key"]
    return key


def command_line(server: ServerProcess, key: str) -> dict[str, bytes]:
    """Return what the command line prints."""
    environment = {**os.environ, "PIPELIT_URL": server.url, "PIPELIT_API_KEY": key}
    commands = ("workflow export canary", "workflow show canary", "executions list", "logs")
    said = {}
    for command in commands:
        line = [sys.executable, "-m", "pipelit", *command.split()]
        done = subprocess.run(line, env=environment, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        said[command] = done.stdout + done.stderr
    return said
