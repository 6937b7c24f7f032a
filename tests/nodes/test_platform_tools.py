"""whoami, validate_topology and system_health as tools: what they offer and how they word it."""

import json

import pytest

from pipelit.engine.definition import NodeDef
from pipelit.engine.dsl import Checked
from pipelit.nodes.base import ToolError
from pipelit.nodes.system_health import system_health_tools
from pipelit.nodes.topology import validate_topology_tools
from pipelit.nodes.whoami import Parent, introduce, whoami_tools
from tests.nodes.calls import node, services, tool_context

AGENT = NodeDef(
    id=1,
    node_id="agent_ab12",
    component_type="agent",
    config={"system_prompt": "Be {{ kind }}.", "extra_config": {"max_iterations": 3}},
)


def whoami_of(parent):
    async def find_parent(workflow_id, tool_id):
        assert (workflow_id, tool_id) == (1, "me")
        return parent

    (tool,) = whoami_tools(node("whoami"), {}, services(), find_parent=find_parent)
    return tool


def topology_of(answer):
    async def check(text, workflow_id, tool_id):
        if isinstance(answer, Exception):
            raise answer
        return answer

    (tool,) = validate_topology_tools(node("validate_topology"), {}, services(), check=check)
    return tool


async def test_whoami_introduces_the_agent_the_tool_is_attached_to():
    """Its config as stored; where and how to change it."""
    tool = whoami_of(Parent("agent_ab12", AGENT))
    assert (tool.spec.name, tool.spec.parameters["properties"]) == ("whoami", {})
    assert tool.spec.description == (
        "Get your own workflow, node id, configuration and how to change it."
    )

    text = await tool.run({}, tool_context())
    told = json.loads(text)

    assert text.startswith('{\n  "identity": {\n')
    assert told["identity"] == {
        "workflow_slug": "w",
        "workflow_id": 1,
        "node_id": "agent_ab12",
        "component_type": "agent",
    }
    assert told["current_config"] == {
        "system_prompt": "Be {{ kind }}.",
        "system_prompt_length": 14,
        "extra_config": {"max_iterations": 3},
    }
    change = told["self_modification"]
    assert change["endpoint"] == "/api/v1/workflows/w/nodes/agent_ab12/"
    assert change["method"] == "PATCH"
    assert change["example_body"]["config"]["system_prompt"]
    assert all(change["instructions"])


def test_whoami_shows_the_beginning_of_a_long_prompt():
    """The length is that of the whole."""
    long = NodeDef(id=1, node_id="a", component_type="agent", config={"system_prompt": "x" * 1001})

    shown = introduce(long, "w", 1)["current_config"]

    assert shown["system_prompt"] == "x" * 1000 + "..."
    assert (shown["system_prompt_length"], shown["extra_config"]) == (1001, {})


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        (
            None,
            {
                "error": "This whoami tool is not connected to any agent node",
                "hint": "Connect this tool to an agent via a 'tool' edge",
            },
        ),
        (Parent("gone", None), {"error": "Agent node 'gone' not found"}),
    ],
)
async def test_whoami_says_what_is_missing(parent, told):
    """As JSON; the call has failed."""
    with pytest.raises(ToolError) as caught:
        await whoami_of(parent).run({}, tool_context())

    assert json.loads(caught.value.told) == told


@pytest.mark.parametrize(
    ("text", "answer", "told"),
    [
        (
            "name: x\nsteps: []",
            Checked(valid=False, errors=("Parse error: `steps` must be a non-empty list",)),
            '{"valid":false,"errors":["Parse error: `steps` must be a non-empty list"],'
            '"warnings":[],"node_count":0,"edge_count":0}',
        ),
        (
            "good",
            Checked(valid=True, warnings=("w",), node_count=2, edge_count=1),
            '{"valid":true,"errors":[],"warnings":["w"],"node_count":2,"edge_count":1}',
        ),
        (
            " \n",
            Checked(valid=True),
            '{"valid":false,"errors":["Empty topology YAML provided"],'
            '"warnings":[],"node_count":0,"edge_count":0}',
        ),
    ],
)
async def test_validate_topology_tells_what_a_document_is_worth(text, answer, told):
    """Broken documents are results, not failures."""
    tool = topology_of(answer)
    assert (tool.spec.name, tool.spec.description) == (
        "validate_topology",
        "Check workflow YAML. Returns JSON with errors.",
    )

    assert await tool.run({"topology_yaml": text}, tool_context()) == told


async def test_a_check_that_breaks_is_a_failure():
    """The model reads it in the same form."""
    with pytest.raises(ToolError) as caught:
        await topology_of(ValueError("boom")).run({"topology_yaml": "x"}, tool_context())

    told = json.loads(caught.value.told)
    assert told["errors"] == ["Validation error: boom"]
    assert told["valid"] is False


async def test_system_health_gives_the_report():
    """For the workflow the agent is in."""

    async def report(workflow_id):
        return {"summary": "healthy", "workflow": workflow_id}

    (tool,) = system_health_tools(node("system_health"), {}, services(), report=report)

    assert (tool.spec.name, tool.spec.description) == (
        "check_system_health",
        "Report platform health with issues.",
    )
    told = json.loads(await tool.run({}, tool_context()))
    assert told == {"summary": "healthy", "workflow": 1}
