"""Logic and flow. Contract: node-types.md §9.3, §10."""

from tests.kit.bench_nodes import Run
from tests.kit.node_world import EMPTY, INVALID, World, case


@case
async def identify_user(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("identify_user", {"channel": "manual"}),
            "say": ("reply_chat", {"message": "Hello {{ user_context.display_name }}"}),
        },
        "t -> n, n -> say",
    )
    ports = run.ports("n")

    assert run.ports("say") == {"output": "Hello olga"}
    assert ports["user_context"]["display_name"] == "olga"
    assert ports["user_id"] == ports["user_context"]["user_id"]


@case
async def switch(world: World) -> None:
    rules = [{"id": "big", "field": "trigger.payload.total", "operator": "gt", "value": "1000"}]
    unknown = [{**rules[0], "operator": "sounds_like"}]
    run = await world.nodes.run(
        {
            "n": ("switch", {"rules": rules, "enable_fallback": True}),
            "yes": ("reply_chat", {"message": "big"}),
            "no": ("reply_chat", {"message": "small"}),
            "other": ("switch", {"rules": [{**rules[0], "value": "1"}], "enable_fallback": True}),
        },
        "t -> n, t -> other, n -> yes = big, n -> no = __other__",
        payload={"total": 12},
    )
    problem = await world.nodes.problem({"n": ("switch", {"rules": unknown})})

    assert run.ports("n") == {"route": "__other__"}
    assert run.ports("other") == {"route": "big"}
    assert run.ports("no") == {"output": "small"}
    assert problem == ("Node 'n': unknown operator 'sounds_like'", INVALID)


@case
async def code(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("code", {"code": "print('hi')\nreturn {'n': len(trigger.text)}"}),
            "text": ("code", {"language": "template", "code": "{{ trigger.text }}!"}),
            "empty": ("code", {"code": EMPTY}),
            "cobol": ("code", {"code": "x", "language": "cobol"}),
        },
        fails=["empty", "cobol"],
    )

    assert run.ports("n") == {"output": '{"n": 2}', "result": {"n": 2}, "stdout": "hi\n"}
    assert run.ports("text")["result"] == "go!"
    assert run.failure("empty") == ("No code provided", "ConfigError")
    assert run.failure("cobol") == ("Language 'cobol' not supported", "ConfigError")


@case
async def merge(world: World) -> None:
    both = "t -> a, t -> b, a -> {0}, b -> {0}"
    nodes = {
        "a": ("calculator", {"expression": "1+1"}),
        "b": ("calculator", {"expression": "2+2"}),
    }
    append = await world.nodes.run({**nodes, "n": ("merge", {})}, both.format("n"))
    combine = await world.nodes.run(
        {**nodes, "n": ("merge", {"mode": "combine"})}, both.format("n")
    )

    assert append.ports("n") == {"merged": ["2", "4"]}
    assert combine.ports("n") == {"merged": {"result": "4"}}


ITEMS = {"items": [{"score": 0.9}, {"score": 0.1}], "words": ["x", "y", "x"]}
FROM_TRIGGER = {"source_node": "t", "field": "payload.items"}


@case
async def filter_(world: World) -> None:
    rules = [{"field": "score", "operator": "gte", "value": "0.7"}]
    run = await world.nodes.run(
        {
            "n": ("filter", {**FROM_TRIGGER, "rules": rules}),
            "all": ("filter", FROM_TRIGGER),
        },
        payload=ITEMS,
    )
    unknown = {**FROM_TRIGGER, "rules": [{**rules[0], "operator": "smells"}]}
    problem = await world.nodes.problem({"n": ("filter", unknown)})

    assert run.ports("n") == {"filtered": [{"score": 0.9}]}
    assert run.ports("all") == {"filtered": ITEMS["items"]}
    assert problem == ("Node 'n': unknown operator 'smells'", INVALID)


@case
async def loop(world: World) -> None:
    words = {"source_node": "t", "field": "payload.words"}
    run = await world.nodes.run(
        {
            "n": ("loop", words),
            "up": ("code", {"language": "template", "code": "{{ loop.item | upper }}"}),
            "many": ("loop", {**words, "max_iterations": 2}),
        },
        "t -> n, n -> up : loop_body, up -> n : loop_return, t -> many",
        payload=ITEMS,
        fails=["many"],
    )
    ports = run.ports("n")

    assert (ports["items"], ports["count"]) == (["x", "y", "x"], 3)
    assert ports["values"] == ["X", "Y", "X"]
    assert [result["up"]["output"] for result in ports["results"]] == ["X", "Y", "X"]
    assert run.failure("many") == (
        "Loop 'many' has 3 items, more than max_iterations (2)",
        "LoopLimitError",
    )


@case
async def wait(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("wait", {"duration": 0.01}),
            "past": ("wait", {"duration": -5, "unit": "minutes"}),
            "word": ("wait", {"duration": "soon"}),
            "unit": ("wait", {"duration": 1, "unit": "years"}),
            "long": ("wait", {"duration": 2, "unit": "hours"}),
        },
        fails=["word", "unit", "long"],
    )

    assert run.ports("n") == {"output": "Waited 0.01 seconds"}
    assert run.ports("past")["output"].endswith(" minutes")
    assert run.failure("word") == ("Wait duration must be a number", "ConfigError")
    assert run.failure("unit") == ("Unknown wait unit 'years'", "ConfigError")
    assert run.failure("long")[0].startswith("Wait of 7200s exceeds the remaining execution time")


@case
async def human_confirmation(world: World) -> None:
    slug = await world.nodes.build(
        {
            "n": ("human_confirmation", {"prompt": "Pay?"}),
            "s": ("switch", {}),
            "no": ("reply_chat", {"message": "not paid"}),
        },
        "t -> n, n -> s, s -> no = cancelled",
    )
    endings = {}
    for answer in ("no", " YES "):
        execution = await world.api.run(slug)
        question = await world.question(execution)
        assert question["prompt"] == "Pay?"
        body = {"task_id": question["task_id"], "input": answer}
        await world.api.post(f"/executions/{execution}/resume/", body)
        endings[answer] = Run(await world.api.wait_end(execution))

    assert endings["no"].ports("n") == {"confirmed": False, "user_response": "no"}
    assert endings["no"].ports("no") == {"output": "not paid"}
    assert endings[" YES "].ports("n")["confirmed"] is True
    await _rejected(world)


async def _rejected(world: World) -> None:
    slug = await world.nodes.build({"n": ("human_confirmation", {"on_reject": "cancel"})})
    execution = await world.api.run(slug)
    question = await world.question(execution)
    body = {"task_id": question["task_id"], "input": "no"}
    await world.api.post(f"/executions/{execution}/resume/", body)
    detail = await world.api.wait_end(execution)

    assert (detail["status"], detail["error_message"]) == ("cancelled", "Rejected at 'n'")


@case
async def aggregator(world: World) -> None:
    run = await world.nodes.run(
        {
            "n": ("aggregator", {**FROM_TRIGGER, "operation": "sum", "field": "score"}),
            "unique": ("aggregator", {"source_node": "t", "field": "payload.words"}),
            "bad": ("aggregator", {**FROM_TRIGGER, "operation": "guess"}),
        },
        payload=ITEMS,
        fails=["bad"],
    )

    assert "aggregated" in run.ports("n")
    assert run.failure("bad") == ("Unknown aggregator operation 'guess'", "ConfigError")


@case
async def error_handler(world: World) -> None:
    run = await world.nodes.run({"fetch": ("calculator", {"expression": "x"})}, fails=["fetch"])
    ports = run.ports("h_fetch")

    assert (ports["failed_node"], ports["error_code"]) == ("fetch", "ToolError")
    assert ports["message"] == "Unsupported expression: Name"
    assert run.detail["status"] == "completed"


@case
async def reply_chat(world: World) -> None:
    run = await world.nodes.run(
        {
            "a": ("calculator", {"expression": "2*3"}),
            "n": ("reply_chat", {"message": "Done: {{ a.result }}"}),
            "dead": ("reply_chat", {"message": "never"}),
        },
        "t -> a, a -> n, n -> dead",
    )

    assert run.ports("n") == {"output": "Done: 6"}
    assert run.detail["final_output"] == {"output": "Done: 6"}
    assert [row["status"] for row in run.detail["logs"] if row["node_id"] == "dead"] == ["skipped"]


@case
async def workflow(world: World) -> None:
    child = await world.nodes.build(
        {"say": ("reply_chat", {"message": "got {{ trigger.text }}"})}, trigger="trigger_workflow"
    )
    failing = await world.nodes.build(
        {"bad": ("calculator", {"expression": "1/0"})}, trigger="trigger_workflow"
    )
    mapping = {"text": "{{ trigger.payload.q }}"}
    run = await world.nodes.run(
        {
            "n": ("workflow", {"target_workflow": child, "input_mapping": mapping}),
            "bad": ("workflow", {"target_workflow": failing}),
            "lost": ("workflow", {"target_workflow": "no-such"}),
            "none": ("workflow", {"target_workflow": EMPTY}),
        },
        payload={"q": 5},
        fails=["bad", "lost", "none"],
    )

    assert run.ports("n") == {"output": {"output": "got 5"}, "text": "got 5"}
    assert run.failure("bad") == (
        "Child execution failed: Node bad failed: division by zero",
        "ChildExecutionError",
    )
    assert run.failure("lost")[0] == "Target workflow not found: 'no-such'"
    assert run.failure("none")[0] == "Target workflow not found: ''"
