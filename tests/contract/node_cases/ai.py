"""Nodes with a model, and what is attached to them. Contract: node-types.md §5, §6."""

from typing import Any

from tests.kit.bench_nodes import Talk
from tests.kit.node_world import INVALID, World, case

REVIEWER = {"name": "reviewer", "description": "Reviews", "system_prompt": "Review."}


async def _without_model(world: World, component_type: str, **extra: Any) -> None:
    problem = await world.nodes.problem({"n": (component_type, extra)})
    assert problem == ("Node 'n' is missing required 'model' connection", INVALID)


@case
async def agent(world: World) -> None:
    async with world.nodes.agent({"sum": ("calculator", {})}) as talk:
        assert await talk.ask("calculator", expression="12*17") == "204"
    run = await world.nodes.run(
        {"n": ("agent", {"input_template": "{{ trigger.payload.q }}?"})},
        "m -> n : llm, t -> n",
        payload={"q": "12*17"},
        answers=["204"],
    )

    assert run.ports("n")["output"] == "204"
    assert world.asked("user") == "12*17?"
    await _without_model(world, "agent")


@case
async def deep_agent(world: World) -> None:
    options = {"enable_todos": True, "enable_filesystem": True, "subagents": [REVIEWER]}
    async with world.nodes.agent({}, "deep_agent", **options) as talk:
        todos = [{"content": "write", "status": "pending"}]
        planned = await talk.ask("write_todos", todos=todos)
        written = await talk.ask("write_file", file_path="/a.md", content="draft")
        listed = await talk.ask("ls")
        missing = await talk.fail("read_file", file_path="/b.md")
        outside = await talk.fail("read_file", file_path="/../b.md")
        nobody = await talk.fail("task", description="x", subagent_type="poet")

    assert planned.startswith("Updated todo list: [")
    assert (written, listed) == ("Wrote 5 bytes to /a.md", "a.md")
    assert missing == "Error: file '/b.md' not found"
    assert outside == "Error: path escapes the workspace"
    assert nobody == "Error: unknown subagent 'poet'"
    await _without_model(world, "deep_agent")


@case
async def categorizer(world: World) -> None:
    wanted = [{"name": "billing"}, {"name": "technical"}]
    nodes = {"n": ("categorizer", {"categories": wanted, "input_template": "x"})}
    said = '{"category": "technical"}'
    run = await world.nodes.run(nodes, "m -> n : llm, t -> n", answers=[said])
    lost = await world.nodes.run(nodes, "m -> n : llm, t -> n", answers=["no idea"])

    assert run.ports("n") == {"category": "technical", "raw": said}
    assert lost.ports("n") == {"category": "billing", "raw": "no idea"}
    await _without_model(world, "categorizer", categories=wanted)


@case
async def router(world: World) -> None:
    run = await world.nodes.run(
        {
            "same": ("router", {"condition_expression": "state.trigger.text == 'go'"}),
            "other": ("router", {"condition_expression": "state.trigger.text == 'stay'"}),
            "missing": ("router", {"condition_field": "nowhere"}),
        }
    )

    assert run.ports("same") == {"route": "go"}
    assert run.ports("other") == {"route": ""}
    assert run.ports("missing") == {"route": ""}


@case
async def extractor(world: World) -> None:
    schema = {"name": "string", "phone": "string | null"}
    nodes = {"n": ("extractor", {"extraction_schema": schema, "input_template": "I'm Ann"})}
    run = await world.nodes.run(nodes, "m -> n : llm, t -> n", answers=['{"name": "Ann", "x": 1}'])
    failed = await world.nodes.run(nodes, "m -> n : llm, t -> n", answers=["no", "no"], fails=["n"])

    assert run.ports("n")["extracted"] == {"name": "Ann", "phone": None}
    assert failed.failure("n") == (
        "Extractor could not parse a JSON object from the model response",
        "ExtractionError",
    )


# Attached configuration


@case
async def ai_model(world: World) -> None:
    nodes = {"n": ("agent", {}), "m2": ("ai_model", {})}
    bad = await world.nodes.run(nodes, "m2 -> n : llm, t -> n", fails=["n"])
    good = await world.nodes.run({"n": ("agent", {})}, "m -> n : llm, t -> n", answers=["hello"])

    assert good.ports("n")["output"] == "hello"
    assert bad.failure("n") == (
        "Node 'm2' (ai_model) requires both model_name and llm_credential on its config.",
        "ConfigError",
    )


@case
async def output_parser(world: World) -> None:
    nodes = {
        "n": ("extractor", {"input_template": "x"}),
        "p": ("output_parser", {"parser_type": "list"}),
    }
    edges = "m -> n : llm, p -> n : output_parser, t -> n"
    run = await world.nodes.run(nodes, edges, answers=["1. A\n- B"])

    assert run.ports("n")["extracted"] == {"items": ["A", "B"]}


@case
async def skill(world: World) -> None:
    folder = world.site.server.data / "skills" / "pr-review"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = "---\nname: pr-review\ndescription: Review a pull request\n---\nRead it.\n"
    (folder / "SKILL.md").write_text(manifest)
    slug = await world.nodes.build(
        {"a": ("agent", {}), "s": ("skill", {})}, "m -> a : llm, s -> a : skill, t -> a"
    )
    execution = await world.api.run(slug)
    call = await world.provider.next_call()
    assert "- pr-review: Review a pull request" in str(call.body["messages"][0]["content"])
    talk = Talk(world.provider, call)
    read = await talk.ask("read_skill", name="pr-review")
    unknown = await talk.fail("read_skill", name="x")
    lost = await talk.fail("read_skill", name="pr-review", file="../x")
    await talk.call.say("done")
    await world.api.wait_end(execution)

    assert read == manifest
    assert unknown == "Error: unknown skill 'x'"
    assert lost == "Error: file '../x' not found in skill 'pr-review'"
