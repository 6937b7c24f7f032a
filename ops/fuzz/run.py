"""Fuzz the HTTP API of a fresh server against what it says of itself in `/openapi.json`.

Usage: python ops/fuzz/run.py [ARGUMENT OF SCHEMATHESIS…]. Starts a server with a data directory of
its own, makes an admin and a few things to find, and lets Schemathesis call every operation, with
`schemathesis.toml` beside this file. Exit code 1: an answer broke a promise.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
GATEWAY_TOKEN = "fuzz-gateway-token"
NODES: dict[str, dict[str, Any]] = {
    "chat_in": {"component_type": "trigger_chat"},
    "start": {"component_type": "trigger_manual"},
    "hook": {"component_type": "trigger_webhook"},
    "clock": {
        "component_type": "trigger_schedule",
        "config": {"extra_config": {"interval_seconds": 86400}},
    },
    "fail_in": {"component_type": "trigger_manual"},
    "fail": {"component_type": "wait", "config": {"extra_config": {"duration": "soon"}}},
    "ask_in": {"component_type": "trigger_manual"},
    "ask": {"component_type": "human_confirmation"},
    "say": {
        "component_type": "reply_chat",
        "config": {"extra_config": {"message": "{{ trigger.text }}"}},
    },
}
EDGES = (
    ("chat_in", "say"),
    ("start", "say"),
    ("hook", "say"),
    ("clock", "say"),
    ("fail_in", "fail"),
    ("ask_in", "ask"),
)


@contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """Run a server and yield its URL."""
    command = [sys.executable, "-m", "pipelit", "serve", "--port", "0", "--log-level", "WARNING"]
    command += ["--data-dir", str(directory / "data"), "--log-file", str(directory / "log")]
    environment = os.environ | {"PIPELIT_GATEWAY_INBOUND_TOKEN": GATEWAY_TOKEN}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    try:
        line = next((line for line in process.stderr if "Pipelit is ready" in line), None)
        if line is None:
            raise SystemExit("the server did not start")
        yield next(word for word in line.split() if word.startswith("http")).rstrip(".")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def furnish(api: httpx2.Client) -> str:
    """Make an admin and one of each thing; return the admin's key."""

    def post(path: str, **body: Any) -> Any:
        answer = api.post(f"/api/v1{path}", json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    key: str = post("/auth/setup/", username="ada", password="correct horse battery")["key"]
    api.headers["Authorization"] = f"Bearer {key}"
    for slug in ("fuzz", "victim-1", "victim-2", "victim-3"):
        post("/workflows/", name="Fuzz", slug=slug)
        for node_id, node in NODES.items():
            post(f"/workflows/{slug}/nodes/", node_id=node_id, **node)
        for source, target in EDGES:
            post(f"/workflows/{slug}/edges/", source_node_id=source, target_node_id=target)
    post("/workflows/fuzz/nodes/clock/schedule/start")
    for trigger in ("start", "fail_in", "ask_in"):
        post("/workflows/fuzz/execute/", text="hello", trigger_node_id=trigger)
    post("/workflows/fuzz/chat/", text="hello")
    post("/schedules/", name="daily", workflow_id=1, trigger_node_id="clock", cron="0 9 * * *")
    post("/tasks/", epic_id=post("/epics/", title="An epic")["id"], title="A task")
    post("/workspaces/", name="fuzz")
    post("/users/", username="bob", password="correct horse battery", role="normal")
    post("/users/me/keys", name="another")
    detail = {"provider_type": "anthropic", "api_key": "sk-fuzz-0123456789"}
    post("/credentials/", name="model", credential_type="llm", detail=detail)
    return key


def main() -> int:
    with tempfile.TemporaryDirectory() as name, running_server(Path(name)) as url:
        with httpx2.Client(base_url=url, trust_env=False) as api:
            key = furnish(api)
        given = {"FUZZ_KEY": key, "FUZZ_GATEWAY_TOKEN": GATEWAY_TOKEN, "PYTHONPATH": str(HERE)}
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        command += ["--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"]
        return subprocess.run(
            [*command, *sys.argv[1:]], env=os.environ | given, cwd=name, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
