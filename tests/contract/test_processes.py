"""Nodes that run processes, in a running server: results, workspaces, refusals, cancel.

Contract: engine.md §11.3, §29, node-types.md §7.1, §7.6, §10.2.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.api import Api, http_client, node_events
from tests.kit.model_server import ModelCall, ModelServer
from tests.kit.sandbox import bubblewrap, sleepers
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import People, Site, run_site
from tests.kit.waiting import until

__all__ = ["bubblewrap"]

pytestmark = pytest.mark.slow

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."
REFUSED = {
    "code": {"code": "return 1"},
    "run_command": {"command": "true"},
    "code_execute": {"code": "print(1)"},
}


async def build(api: Api, slug: str, component_type: str, **extra: object) -> None:
    """Build a workflow of a manual trigger and one node `n`."""
    nodes = {"t": ("trigger_manual", {}), "n": (component_type, {"extra_config": extra})}
    await api.build(slug, nodes, "t -> n")


async def run(api: Api, slug: str, component_type: str, **extra: object) -> Any:
    """Build such a workflow, run it, and return its execution."""
    await build(api, slug, component_type, **extra)
    return await api.wait_end(await api.run(slug, name="Ann"))


async def call_tool(call: ModelCall, name: str, arguments: str) -> None:
    function = {"name": name, "arguments": arguments}
    calls = [{"index": 0, "id": "c1", "type": "function", "function": function}]
    await call.stream(
        [
            {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        ]
    )


async def test_code_computes_from_what_came_before(
    bubblewrap: str, people: People, slug: str
) -> None:
    """The trigger's payload is at hand; the ports are stored."""
    detail = await run(
        people.olga, slug, "code", code="print('hi')\nreturn {'hello': trigger.payload.name}"
    )

    assert detail["status"] == "completed"
    assert detail["logs"][-1]["output"] == {
        "output": '{"hello": "Ann"}',
        "result": {"hello": "Ann"},
        "stdout": "hi\n",
    }


async def test_a_failing_command_is_a_result(bubblewrap: str, people: People, slug: str) -> None:
    """Its exit code is a port."""
    detail = await run(people.olga, slug, "run_command", command="echo hi; exit 3")

    assert detail["status"] == "completed"
    assert detail["logs"][-1]["output"] == {"result": "hi\n\n[exit code: 3]", "exit_code": 3}


async def test_an_agent_runs_commands_in_its_workspace(
    bubblewrap: str, people: People, slug: str, provider: ModelServer
) -> None:
    """With its variables, from credentials too; the model never reads their values."""
    credential = await people.olga.add_model(provider.url)
    variables = [
        {
            "key": "KEY",
            "source": "credential",
            "credential_id": credential,
            "credential_field": "api_key",
        },
        {"key": "MODE", "value": "fast"},
        {"key": "N", "value": "1"},
    ]
    workspace = await people.olga.post("/workspaces/", {"name": slug[:90], "env_vars": variables})
    await people.olga.build(
        slug,
        {
            "t": ("trigger_chat", {}),
            "m": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
            "a": ("agent", {"extra_config": {"workspace_id": workspace["id"]}}),
            "sh": ("run_command", {}),
        },
        "m -> a : llm, sh -> a : tool, t -> a",
    )

    execution = await people.olga.chat(slug, "run it")
    call = await provider.next_call()
    await call_tool(call, "run_command", '{"command": "echo ${#KEY} $KEY $MODE $N >x; cat x"}')
    answer = await provider.next_call()
    await answer.say("done")
    detail = await people.olga.wait_end(execution)

    assert detail["status"] == "completed"
    assert answer.body["messages"][-1]["content"] == "18 **** **** 1\n"
    assert (Path(workspace["path"]) / "x").read_text() == "18 sk-test-0123456789 fast 1\n"


@pytest.mark.parametrize("key", ["olga", "otto", "ada"])
async def test_a_workflow_works_only_in_its_owners_workspaces(
    bubblewrap: str, people: People, slug: str, key: str
) -> None:
    """Another user's is as good as missing; an admin may use all."""
    workspace = await people.olga.post("/workspaces/", {"name": slug[:90]})
    caller: Api = getattr(people, key)
    detail = await run(caller, slug, "run_command", command="true", workspace_id=workspace["id"])

    if key == "otto":
        message = f"Node n failed: Workspace {workspace['id']} does not exist"
        assert (detail["error_message"], detail["error_code"]) == (message, "ConfigError")
    else:
        assert detail["status"] == "completed"


async def test_a_variable_without_its_credential_stops_the_node(
    bubblewrap: str, people: People, slug: str, provider: ModelServer
) -> None:
    """A command never runs with half of its variables."""
    credential = await people.olga.add_model(provider.url)
    variable = {"key": "KEY", "source": "credential", "credential_id": credential}
    variables = [{**variable, "credential_field": "nothing"}]
    workspace = await people.olga.post("/workspaces/", {"name": slug[:90], "env_vars": variables})
    detail = await run(
        people.olga, slug, "run_command", command="true", workspace_id=workspace["id"]
    )

    assert detail["error_code"] == "ConfigError"
    assert f"credential {credential} has no field 'nothing'" in detail["error_message"]


async def test_a_link_in_place_of_the_temporary_directory_is_not_followed(
    bubblewrap: str, people: People, slug: str, tmp_path: Path
) -> None:
    """It could lead anywhere on the host."""
    workspace = await people.olga.post("/workspaces/", {"name": slug[:90]})
    temporary = Path(workspace["path"]) / ".tmp"
    shutil.rmtree(temporary)
    temporary.symlink_to(tmp_path)
    detail = await run(
        people.olga, slug, "run_command", command="touch /tmp/x", workspace_id=workspace["id"]
    )

    assert detail["error_code"] == "SandboxUnavailable"
    assert not (tmp_path / "x").exists()


DAEMON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        break
    os.setsid()
else:
    os.execvp("sleep", ["sleep", "{mark}"])
time.sleep(300)
"""


async def test_nothing_of_a_cancelled_node_runs_on(
    bubblewrap: str, people: People, slug: str
) -> None:
    """A child that forked twice and ignores SIGTERM is gone within two seconds."""
    mark = "300.8642"
    await build(people.olga, slug, "code", code=DAEMON.format(mark=mark))
    execution = await people.olga.run(slug)
    await until(lambda: bool(sleepers(mark)), seconds=30)

    await people.olga.post(f"/executions/{execution}/cancel/")
    await until(lambda: not sleepers(mark), seconds=2.0)

    assert (await people.olga.wait_end(execution))["status"] == "cancelled"


async def test_nothing_of_a_killed_server_runs_on(bubblewrap: str, tmp_path: Path) -> None:
    """Sandboxes die with their parent, even when it gets no chance to say goodbye."""
    mark = "300.9753"
    with run_site(ServerProcess(tmp_path, free_port())) as site:
        async with http_client(site.url) as http:
            ada = Api(http, site.ada)
            await build(ada, "daemon", "code", code=DAEMON.format(mark=mark))
            await ada.run("daemon")
            await until(lambda: bool(sleepers(mark)), seconds=30)

    await until(lambda: not sleepers(mark), seconds=2.0)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that finds no bubblewrap: its PATH leads nowhere."""
    directory = tmp_path_factory.mktemp("bare")
    with run_site(ServerProcess(directory, free_port(), {"PATH": str(directory)})) as site:
        yield site


@pytest.fixture
async def olga(bare: Site) -> AsyncIterator[Api]:
    async with http_client(bare.url) as http:
        yield Api(http, bare.olga)


@pytest.mark.parametrize("component_type", REFUSED)
async def test_without_bubblewrap_nodes_are_refused(
    olga: Api, slug: str, component_type: str
) -> None:
    """The log, the event and the execution say so, at the first attempt."""
    detail = await run(olga, slug, component_type, **REFUSED[component_type])

    assert detail["status"] == "failed"
    assert detail["error_code"] == "SandboxUnavailable"
    assert detail["error_message"] == f"Node n failed: {NOT_INSTALLED}"
    log = detail["logs"][-1]
    assert (log["error"], log["error_code"]) == (NOT_INSTALLED, "SandboxUnavailable")
    events = await olga.events(detail["execution_id"])
    assert node_events(events, "n") == ["pending", "running", "failed"]


async def test_a_template_needs_no_bubblewrap(olga: Api, slug: str) -> None:
    """Nothing is run for it."""
    code = "Dear {{ trigger.payload.name | upper }}"
    detail = await run(olga, slug, "code", code=code, language="template")

    assert detail["logs"][-1]["output"]["output"] == "Dear ANN"
