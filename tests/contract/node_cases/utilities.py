"""Tools that may be steps, and checks. Contract: node-types.md §7."""

import re

from tests.kit.node_world import EMPTY, World, case

FEATURE = "Feature: X\n  Scenario: a\n    Given b"
WORKFLOW = "name: x\nsteps:\n  - {id: say, type: reply_chat, message: hi}"


@case
async def run_command(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("run_command", {"command": "echo hi; exit 3"}),
            "bad": ("run_command", {"command": EMPTY}),
        },
        fails=["bad"],
    )
    async with world.nodes.agent({"x": ("run_command", {})}) as talk:
        assert await talk.ask("run_command", command="echo hi; exit 3") == "hi\n\n[exit code: 3]"
        assert await talk.ask("run_command", command="true") == "(no output)"
    async with world.nodes.agent({"x": ("run_command", {"timeout": 1})}) as talk:
        late = await talk.fail("run_command", command="sleep 30")

    assert run.ports("n") == {"result": "hi\n\n[exit code: 3]", "exit_code": 3}
    assert run.failure("bad") == ("'command' is required", "ConfigError")
    assert late == "Error: command timed out after 1 seconds"


@case
async def http_request(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("http_request", {"url": f"{world.web}/ping"}),
            "verb": ("http_request", {"url": world.web, "method": "BREW"}),
            "empty": ("http_request", {"url": EMPTY}),
            "inside": ("http_request", {"url": "http://10.0.0.1/"}),
        },
        fails=["verb", "empty", "inside"],
    )
    async with world.nodes.agent({"x": ("http_request", {})}) as talk:
        good = await talk.ask("http_request", url=f"{world.web}/ping")
        blocked = await talk.fail("http_request", url="http://10.0.0.1/")
    ports = run.ports("n")

    assert good == 'HTTP 200\n{"path":"/ping"}'
    assert blocked == "Error: blocked address: 10.0.0.1 (10.0.0.1)"
    assert (ports["status_code"], ports["ok"], ports["json"]) == (200, True, {"path": "/ping"})
    assert (ports["body"], ports["result"]) == ('{"path":"/ping"}', good)
    assert run.failure("verb") == ("unsupported method 'BREW'", "ConfigError")
    assert run.failure("empty") == ("'url' is required", "ConfigError")
    assert run.failure("inside") == (
        "blocked address: 10.0.0.1 (10.0.0.1)",
        "EgressBlockedError",
    )


@case
async def web_search(world: World) -> None:
    there = {"searxng_url": f"{world.web}/searx"}
    run = await world.nodes.run(
        {
            "n": ("web_search", {**there, "query": "trio"}),
            "empty": ("web_search", {**there, "query": EMPTY}),
        },
        fails=["empty"],
    )
    async with world.nodes.agent({"x": ("web_search", there)}) as talk:
        found = await talk.ask("web_search", query="trio")
        nothing = await talk.ask("web_search", query="nothing")
    async with world.nodes.agent({"x": ("web_search", {"searxng_url": "http://10.0.0.1"})}) as talk:
        failed = await talk.fail("web_search", query="x")

    assert found == "- Trio docs\n  https://trio.example\n  Structured"
    assert nothing == "No results found."
    assert failed == "Search error: blocked address: 10.0.0.1 (10.0.0.1)"
    assert run.ports("n")["results"] == [
        {"title": "Trio docs", "url": "https://trio.example", "content": "Structured"}
    ]
    assert run.failure("empty") == ("'query' is required", "ConfigError")


@case
async def calculator(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("calculator", {"expression": "(1500*12)+(500*0.08)"}),
            "zero": ("calculator", {"expression": "1/0"}),
            "empty": ("calculator", {"expression": EMPTY}),
        },
        fails=["zero", "empty"],
    )
    async with world.nodes.agent({"x": ("calculator", {})}) as talk:
        assert await talk.ask("calculator", expression="7//2") == "3"
        assert await talk.fail("calculator", expression="1/0") == "Error: division by zero"
        assert await talk.fail("calculator", expression="os") == (
            "Error: Unsupported expression: Name"
        )
        problem = await talk.fail("calculator", sum="1")

    assert run.ports("n") == {"result": "18040.0"}
    assert run.failure("zero") == ("division by zero", "ToolError")
    assert run.failure("empty")[1] == "ConfigError"
    assert problem.startswith("Error: invalid arguments for tool 'calculator': ")


@case
async def datetime(world: World) -> None:
    run = await world.nodes.run({"n": ("datetime", {"timezone": "Asia/Tokyo"})})
    async with world.nodes.agent({"x": ("datetime", {})}) as talk:
        told = await talk.ask("get_datetime")
    async with world.nodes.agent({"x": ("datetime", {"timezone": "Mars/Base"})}) as talk:
        failed = await talk.fail("get_datetime")

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", told)
    assert run.ports("n")["result"].endswith(" JST")
    assert failed == "Error: unknown timezone 'Mars/Base'"


@case
async def code_execute(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("code_execute", {"code": "print(2+2)"}),
            "lisp": ("code_execute", {"code": "x", "language": "lisp"}),
        },
        fails=["lisp"],
    )
    async with world.nodes.agent({"x": ("code_execute", {})}) as talk:
        python = await talk.ask("code_execute", code="print(2+2)")
        bash = await talk.ask("code_execute", code="echo hi; exit 3", language="bash")
        empty = await talk.fail("code_execute", code="")
        lisp = await talk.fail("code_execute", code="x", language="lisp")
        forbidden = await talk.fail("code_execute", code="import os")

    expected = "Language 'lisp' not supported. Use 'python' or 'bash'."
    assert python == run.ports("n")["result"] == "stdout:\n4\n\nexit_code: 0\nresult: 4"
    assert bash == "stdout:\nhi\n\nexit_code: 3"
    assert empty == "Error: No code provided to execute"
    assert lisp == f"Error: {expected}"
    assert forbidden.startswith("Security violation: Forbidden pattern detected: ")
    assert run.failure("lisp") == (expected, "ToolError")


@case
async def validate_gherkin(world: World) -> None:
    async with world.nodes.agent({"x": ("validate_gherkin", {})}) as talk:
        good = await talk.ask_json("validate_gherkin", gherkin_spec=FEATURE)
        empty = await talk.ask_json("validate_gherkin", gherkin_spec="")

    assert (good["valid"], good["parse_errors"], good["lint_errors"]) == (True, [], [])
    assert empty == {
        "valid": False,
        "parse_errors": [{"message": "Empty Gherkin spec provided", "line": 0}],
        "lint_warnings": [],
        "lint_errors": [],
    }


@case
async def validate_topology(world: World) -> None:
    async with world.nodes.agent({"x": ("validate_topology", {})}) as talk:
        good = await talk.ask_json("validate_topology", topology_yaml=WORKFLOW)
        bad = await talk.ask_json("validate_topology", topology_yaml="name: x\nsteps: []")
        empty = await talk.ask_json("validate_topology", topology_yaml="")

    assert (good["valid"], good["node_count"], good["edge_count"]) == (True, 2, 1)
    assert bad == {
        "valid": False,
        "errors": ["Parse error: `steps` must be a non-empty list"],
        "warnings": [],
        "node_count": 0,
        "edge_count": 0,
    }
    assert empty["errors"] == ["Empty topology YAML provided"]
