"""`kill -9` with 20 executions in different nodes: all complete, and nothing is done twice."""

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kit.api import Api, calling
from tests.kit.server_process import ServerProcess, free_port
from tests.reliability.outside import Outside, Question, outside
from tests.reliability.workflows import NAP_SECONDS, build_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NAP = f"Waited {NAP_SECONDS} seconds"


@dataclass(frozen=True)
class Run:
    """One execution: its workflow, the questions it waits for, its output, its nodes that end."""

    workflow: str
    held: tuple[tuple[str, int], ...]
    output: str
    nodes: tuple[str, ...]


WRITER = ("first", "second", "say")
LEFT, RIGHT = (("fetch", "way", side, "join", "say") for side in ("left", "right"))
PAIR = ("think", "look", "join", "say")
TALK = ("think", "say")

RUNS = {
    "a1": Run("writers", (("first", 1),), "second well a1", WRITER),
    "a2": Run("writers", (("first", 1),), "second well a2", WRITER),
    "a3": Run("writers", (("first", 2),), "second well a3", WRITER),
    "a4": Run("writers", (("first", 2),), "second well a4", WRITER),
    "a5": Run("writers", (("second", 1),), "second well a5", WRITER),
    "a6": Run("writers", (("second", 1),), "second well a6", WRITER),
    "f1": Run("fetchers", (("fetch", 1),), "left of f1", LEFT),
    "f2": Run("fetchers", (("fetch", 1),), "right of f2", RIGHT),
    "f3": Run("fetchers", (("left", 1),), "left of f3", LEFT),
    "f4": Run("fetchers", (("right", 1),), "right of f4", RIGHT),
    "p1": Run("pairs", (("think", 1),), "2", PAIR),
    "p2": Run("pairs", (("look", 1),), "2", PAIR),
    "p3": Run("pairs", (("think", 1), ("look", 1)), "2", PAIR),
    "c1": Run("talk", (("think", 1),), "think well c1", TALK),
    "c2": Run("talk", (), "think well c2", TALK),
    "c3": Run("talk", (), "think well c3", TALK),
    "c4": Run("talk", (), "think well c4", TALK),
    "w1": Run("sleepers", (), NAP, ("nap", "say")),
    "w2": Run("sleepers", (), NAP, ("nap", "say")),
    "w3": Run("sleepers", (), NAP, ("nap", "say")),
}


def held_questions() -> set[Question]:
    return {(run, node, step) for run, plan in RUNS.items() for node, step in plan.held}


async def start_all(api: Api, world: Outside) -> dict[str, str]:
    """Start every run and return {run: execution}, when each is where it is to be killed."""
    started = {}
    for run, plan in RUNS.items():
        if plan.workflow == "talk":
            started[run] = await api.chat("talk", run)
        else:
            started[run] = await api.run(plan.workflow, text=run)
    await world.wait_held(1)
    for run, execution_id in started.items():
        if plan_waits(run):
            await api.wait_for(execution_id, node_id="nap", status="waiting")
    await api.wait_for(started["p1"], node_id="look", status="success")
    await api.wait_for(started["p2"], node_id="think", status="success")
    return started


def plan_waits(run: str) -> bool:
    return RUNS[run].workflow == "sleepers"


async def wait_all(api: Api, started: dict[str, str]) -> dict[str, Any]:
    """Wait for the end of every run; return {run: its detail}."""
    details: dict[str, Any] = {}

    async def wait(run: str, execution_id: str) -> None:
        details[run] = await api.wait_end(execution_id, seconds=30)

    async with trio.open_nursery() as nursery:
        for run, execution_id in started.items():
            nursery.start_soon(wait, run, execution_id)
    return details


async def test_20_killed_executions_complete_and_repeat_nothing(tmp_path: Path) -> None:
    """Right outputs, gapless events, each node once, committed answers and tool calls kept."""
    async with outside(held_questions()) as world:
        server = ServerProcess(tmp_path, free_port(), {"PIPELIT_EGRESS_ALLOW": world.web_address})
        async with calling(server.url) as api:
            async with server.run() as process:
                await api.setup()
                await build_all(api, world)
                started = await start_all(api, world)
                statuses = Counter([(await api.show(e))["status"] for e in started.values()])
                assert statuses == {"running": 17, "pending": 3}
                process.kill()
                await process.wait()

            async with server.run() as process:
                await world.wait_held(2)
                world.release()
                details = await wait_all(api, started)
                events = {run: await api.events(e) for run, e in started.items()}
                history = await api.get("/workflows/talk/chat/history")
                assert await server.stop(process) == 0

    for run, plan in RUNS.items():
        check_run(run, plan, details[run], events[run])
    assert all(count == 1 for count in count_results(server.data / "db.sqlite3").values())
    check_questions(world)
    texts = [message["text"] for message in history["messages"]]
    said = ["c1", "c2", "c3", "c4"]
    assert texts == [*said, *(f"think well {text}" for text in said)]


def check_run(run: str, plan: Run, detail: Any, events: list[Any]) -> None:
    """Check what one run shows of itself."""
    assert (detail["status"], detail["final_output"]) == ("completed", {"output": plan.output}), run
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    terminal = [e["seq"] for e in events if e["type"].removeprefix("execution_") in ENDS]
    assert terminal == [detail["last_seq"]] == [len(events)]
    rows = Counter((log["node_id"], log["status"]) for log in detail["logs"])
    assert set(rows.values()) == {1}, (run, rows)
    assert {node for node, status in rows if status == "success"} == {
        detail["logs"][0]["node_id"],
        *plan.nodes,
    }
    successes = Counter(
        event["data"]["node_id"]
        for event in events
        if event["type"] == "node_status" and event["data"]["status"] == "success"
    )
    assert set(successes.values()) == {1}
    recovered = {
        log["node_id"] for log in detail["logs"] if (log["metadata"] or {}).get("recovered")
    }
    assert recovered == {node for node, _ in plan.held}, run


ENDS = ("completed", "failed", "cancelled")


def count_results(database: Path) -> Counter[tuple[str, str]]:
    """Count the journal's results of each node of each execution."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT execution_id, node_id FROM journal WHERE kind = 'result'"
        ).fetchall()
    assert len(rows) == sum(len(plan.nodes) for plan in RUNS.values())
    return Counter(rows)


def check_questions(world: Outside) -> None:
    """What was held was asked twice, with one idempotency key; everything else once."""
    again = {question for question, count in world.asked.items() if count == 2}
    assert again == held_questions()
    assert set(world.asked.values()) == {1, 2}
    assert all(len(keys) == 1 for keys in world.keys.values())
