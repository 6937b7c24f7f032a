"""The `error_handler` node. Contract: node-types.md 10.10."""

from typing import Any

from pipelit.nodes.error_handler import error_handler
from tests.nodes.calls import call


def failed(node_id: str, *, attempts: int = 4) -> dict[str, Any]:
    details = {"component_type": "http_request", "attempts": attempts, "at": 1770109207.5}
    error = {"code": "ConnectError", "message": f"{node_id} broke", "node_id": node_id}
    return {"status": "failed", "data": {}, "error": {**error, "details": details}}


async def test_it_reports_the_first_failure_and_lists_the_others() -> None:
    """In the order of their commits; failures of nodes that are not before it do not count."""
    results = {
        "far": failed("far"),
        "second": failed("second", attempts=1),
        "fine": {"status": "success", "data": {}, "error": None},
        "first": failed("first"),
    }

    outcome = await error_handler(
        call(state={"node_results": results}, predecessors=("first", "second", "fine"))
    )

    error = outcome.ports["error"]
    assert outcome.ports == {
        "error": error,
        "message": "second broke",
        "error_code": "ConnectError",
        "failed_node": "second",
    }
    assert [other["source_node_id"] for other in error["others"]] == ["first"]
    assert error["others"][0] == {
        "message": "first broke",
        "error_code": "ConnectError",
        "source_node_id": "first",
        "source_node_type": "http_request",
        "execution_id": "e1",
        "workflow_slug": "w",
        "timestamp": "2026-02-03T09:00:07.500000",
        "stack_trace": "",
        "attempts": 4,
    }
