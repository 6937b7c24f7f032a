"""A workflow whose only node does what an attacker says."""

from typing import Any

from tests.kit.api import Api

ATTACK = "{{ trigger.text }}"


async def build(
    api: Api, slug: str, component_type: str, *, limit: int = 60, **config: Any
) -> None:
    """Build a workflow of one node called `attack`; *limit*: seconds of a run."""
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "start": ("trigger_manual", {}),
        "attack": (component_type, {"extra_config": config}),
    }
    await api.build(slug, nodes, "start -> attack", max_execution_seconds=limit)


async def attack(api: Api, slug: str, text: str = "") -> Any:
    """Run the workflow and return the detail of the execution, which has ended."""
    return await api.wait_end(await api.run(slug, text=text))


async def fail_once(api: Api, slug: str, text: str = "") -> str:
    """Run the workflow until the node has failed, and return the error; it is not tried again."""
    run = await api.run(slug, text=text)
    event = await api.wait_for(run, node_id="attack", status="failed")
    await api.call("POST", f"/executions/{run}/cancel/")
    return str(event["data"]["error"])


def log_of(detail: Any, node_id: str = "attack") -> Any:
    """Return the last log row of a node."""
    return [log for log in detail["logs"] if log["node_id"] == node_id][-1]


def output_of(detail: Any) -> Any:
    """Return the ports of the node, which succeeded."""
    assert detail["status"] == "completed", detail["error_message"]
    return log_of(detail)["output"]


def error_of(detail: Any) -> str:
    """Return the error code of the node, which failed."""
    assert detail["status"] == "failed", detail
    code: str = log_of(detail)["error_code"]
    return code
