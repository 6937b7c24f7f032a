"""What must hold for the records of any execution that has ended, whatever happened to it."""

from collections import Counter
from typing import Any

TERMINAL = ("completed", "failed", "cancelled")


def check_records(detail: Any, events: list[Any]) -> None:
    """Check an ended execution's events and logs against each other."""
    about = detail["execution_id"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), about
    assert detail["last_seq"] == len(events), about
    ends = [e["type"] for e in events if e["type"].removeprefix("execution_") in TERMINAL]
    assert ends == [events[-1]["type"]] == [f"execution_{detail['status']}"], about
    if len(events) > 1:
        assert events[0]["type"] == "execution_started", about
    _check_nodes(about, events)
    rows = Counter((row["node_id"], row["status"]) for row in detail["logs"])
    told = Counter(
        (event["data"]["node_id"], event["data"]["status"])
        for event in events
        if event["type"] == "node_status"
        and event["data"]["status"] in {"success", "failed", "skipped"}
        and not event["data"].get("is_tool_call")
    )
    if detail["logs"]:
        del rows[detail["logs"][0]["node_id"], "success"]
    assert rows == told, about


def _check_nodes(about: str, events: list[Any]) -> None:
    """Check that every node goes its way once: pending, running, an end; or is skipped."""
    ways: dict[str, list[str]] = {}
    for event in events:
        if event["type"] == "node_status" and not event["data"].get("is_tool_call"):
            ways.setdefault(event["data"]["node_id"], []).append(event["data"]["status"])
    for node, way in ways.items():
        assert way in (
            ["pending", "running", "success"],
            ["pending", "running", "failed"],
            ["pending", "running", "waiting", "success"],
            ["pending", "running", "waiting", "failed"],
            ["pending", "skipped"],
            ["skipped"],
        ), (about, node, way)
